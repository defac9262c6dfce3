"""What is compiled faster than for users, where rounding does not matter."""

from tests.support.plainly import plainly_compiled as plainly_compiled
