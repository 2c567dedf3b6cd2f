#include "api/signed_url.h"

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "api/secret.h"
#include "api/url.h"
#include "base/json_writer.h"

namespace cube::api {
namespace {

constexpr uint16_t kEnvdPort = 49983;

std::string SignatureOf(const std::string& signed_text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(signed_text.data()), signed_text.size(), digest);
  std::string text =
      Base64({reinterpret_cast<const char*>(digest), static_cast<size_t>(SHA256_DIGEST_LENGTH)});
  while (text.ends_with('=')) text.pop_back();
  return "v1_" + text;
}

}  // namespace

std::optional<SandboxAddress> SignedFor(const pool::Node& node, const Request& request) {
  if (request.path != "/files" || request.query.find("signature") == std::string::npos) {
    return std::nullopt;
  }
  auto fields = ParseQuery(request.query);
  if (!fields) return std::nullopt;
  std::string path, user, signature, expiration;
  for (const auto& [name, value] : *fields) {
    if (name == "path") path = value;
    if (name == "username") user = value;
    if (name == "signature") signature = value;
    if (name == "signature_expiration") expiration = value;
  }
  const char* operation = request.method == "POST" ? "write" : "read";
  for (const auto& [id, sandbox] : node.sandboxes()) {
    const std::string& token = sandbox->record().token;
    if (token.empty()) continue;
    std::string text = path + ":" + operation + ":" + user + ":" + token;
    if (!expiration.empty()) text += ":" + expiration;
    if (SameSecret(SignatureOf(text), signature)) return SandboxAddress{id, kEnvdPort};
  }
  return std::nullopt;
}

}  // namespace cube::api
