"""What checks of other libraries' own share."""

from tests.support.plainly import plainly_compiled as plainly_compiled
