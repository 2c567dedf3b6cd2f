#include "guestkernel/agent/envd/signature.h"

#include <sha2.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <system_error>

#include "base/json_writer.h"
#include "guestkernel/agent/envd/secret.h"

namespace cube::agent::envd {

std::string Sign(std::string_view path, std::string_view operation, std::string_view user,
                 std::string_view token, const std::string* expiration) {
  std::string text(path);
  for (std::string_view part : {operation, user, token}) {
    text += ':';
    text += part;
  }
  if (expiration != nullptr) text += ":" + *expiration;
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest;
  SHA2_CTX sum;
  SHA256Init(&sum);
  SHA256Update(&sum, reinterpret_cast<const uint8_t*>(text.data()), text.size());
  SHA256Final(digest.data(), &sum);
  std::string signature = Base64({reinterpret_cast<const char*>(digest.data()), digest.size()});
  while (signature.ends_with('=')) signature.pop_back();
  return "v1_" + signature;
}

std::optional<std::string> WhyUnsigned(const http::Request& request, std::string_view operation,
                                       const std::string& token, int64_t now) {
  if (token.empty()) return std::nullopt;
  const std::string* given = request.Field("x-access-token");
  if (given != nullptr) {
    if (SameSecret(*given, token)) return std::nullopt;
    return "access token present in header but does not match";
  }
  const std::string* signature = request.Parameter("signature");
  if (signature == nullptr) return "missing signature query parameter";
  const std::string* path = request.Parameter("path");
  const std::string* user = request.Parameter("username");
  const std::string* expiration = request.Parameter("signature_expiration");
  const std::string right = Sign(path == nullptr ? "" : *path, operation,
                                 user == nullptr ? "" : *user, token, expiration);
  if (!SameSecret(*signature, right)) return "invalid signature";
  if (expiration == nullptr) return std::nullopt;
  int64_t expires = 0;
  auto [end, error] =
      std::from_chars(expiration->data(), expiration->data() + expiration->size(), expires);
  if (error != std::errc() || end != expiration->data() + expiration->size()) {
    return "signature expiration is not a number";
  }
  if (expires < now) return "signature is already expired";
  return std::nullopt;
}

}  // namespace cube::agent::envd
