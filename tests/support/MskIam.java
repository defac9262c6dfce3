package headrace;

import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.StringJoiner;
import java.util.TreeMap;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.security.auth.callback.Callback;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerExtensionsValidatorCallback;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;

/**
 * Let those into a broker who bring what AWS's signer makes: a presigned URL of
 * kafka-cluster:Connect, whose SigV4 signature is computed again with a secret of the JAAS options.
 */
public class MskIam implements AuthenticateCallbackHandler {
  private final Map<String, String> secrets = new HashMap<>();

  public void configure(Map<String, ?> c, String mechanism, List<AppConfigurationEntry> entries) {
    for (var entry : entries)
      for (var option : entry.getOptions().entrySet())
        if (option.getKey().startsWith("key_"))
          secrets.put(option.getKey().substring(4), String.valueOf(option.getValue()));
  }

  public void close() {}

  public void handle(Callback[] callbacks) {
    for (Callback callback : callbacks) {
      if (callback instanceof OAuthBearerExtensionsValidatorCallback extensions) {
        extensions.inputExtensions().map().keySet().forEach(extensions::valid);
        continue;
      }
      OAuthBearerValidatorCallback asked = (OAuthBearerValidatorCallback) callback;
      try {
        asked.token(verified(asked.tokenValue()));
      } catch (Exception error) {
        System.err.println("MskIam refused: " + error);
        asked.error("invalid_token", null, null);
      }
    }
  }

  private OAuthBearerToken verified(String value) throws Exception {
    URI url = URI.create(new String(Base64.getUrlDecoder().decode(value), StandardCharsets.UTF_8));
    TreeMap<String, String> raw = new TreeMap<>();
    TreeMap<String, String> query = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
    for (String pair : url.getRawQuery().split("&")) {
      String[] parts = pair.split("=", 2);
      raw.put(parts[0], parts[1]);
      query.put(parts[0], URLDecoder.decode(parts[1], StandardCharsets.UTF_8));
    }
    String[] credential = query.get("X-Amz-Credential").split("/");
    String secret = secrets.get(credential[0]);
    if (secret == null) throw new IllegalArgumentException("unknown key");
    if (!"kafka-cluster:Connect".equals(query.get("Action")))
      throw new IllegalArgumentException("another action");
    raw.remove("X-Amz-Signature");
    raw.remove("User-Agent");
    StringJoiner signed = new StringJoiner("&");
    raw.forEach((name, text) -> signed.add(name + "=" + text));
    String path = url.getRawPath().isEmpty() ? "/" : url.getRawPath();
    String request =
        String.join("\n", "GET", path, signed.toString(), "host:" + url.getHost(), "", "host", sha256(""));
    String date = query.get("X-Amz-Date");
    String scope = String.join("/", credential[1], credential[2], credential[3], "aws4_request");
    String toSign = String.join("\n", "AWS4-HMAC-SHA256", date, scope, sha256(request));
    byte[] key = ("AWS4" + secret).getBytes(StandardCharsets.UTF_8);
    for (String part : scope.split("/")) key = hmac(key, part);
    if (!HexFormat.of().formatHex(hmac(key, toSign)).equals(query.get("X-Amz-Signature")))
      throw new IllegalArgumentException("another signature");
    long start =
        LocalDateTime.parse(date, DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'"))
            .toInstant(ZoneOffset.UTC)
            .toEpochMilli();
    long end = start + 1000 * Long.parseLong(query.get("X-Amz-Expires"));
    if (System.currentTimeMillis() > end) throw new IllegalArgumentException("expired");
    return new OAuthBearerToken() {
      public String value() {
        return value;
      }

      public Set<String> scope() {
        return Set.of();
      }

      public long lifetimeMs() {
        return end;
      }

      public String principalName() {
        return credential[0];
      }

      public Long startTimeMs() {
        return start;
      }
    };
  }

  private static byte[] hmac(byte[] key, String text) throws Exception {
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key, "HmacSHA256"));
    return mac.doFinal(text.getBytes(StandardCharsets.UTF_8));
  }

  private static String sha256(String text) throws Exception {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
  }
}
