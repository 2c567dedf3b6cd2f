#include "templates/digest.h"

#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

namespace cube::templates {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(context_, EVP_sha256(), nullptr);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_); }

void Sha256::Add(std::span<const uint8_t> bytes) {
  EVP_DigestUpdate(context_, bytes.data(), bytes.size());
}

void Sha256::Add(std::string_view text) { EVP_DigestUpdate(context_, text.data(), text.size()); }

void Sha256::AddField(std::string_view text) {
  Add(std::to_string(text.size()) + ":");
  Add(text);
}

std::string Sha256::Finish() {
  uint8_t bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(context_, bytes, &size);
  std::string digits;
  for (unsigned i = 0; i < size; ++i) digits += Format("%02x", bytes[i]);
  return digits;
}

Result<std::string> FileSha256(int fd, const std::string& path) {
  Sha256 sum;
  std::vector<uint8_t> buffer(256 * 1024);
  for (off_t at = 0;;) {
    ssize_t n = pread(fd, buffer.data(), buffer.size(), at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("cannot read %s", path.c_str());
    if (n == 0) return sum.Finish();
    sum.Add(std::span<const uint8_t>(buffer.data(), static_cast<size_t>(n)));
    at += n;
  }
}

Result<std::string> ParseDigest(const std::string& digest) {
  constexpr std::string_view kPrefix = "sha256:";
  constexpr size_t kDigits = 64;
  if (!digest.starts_with(kPrefix) || digest.size() != kPrefix.size() + kDigits ||
      digest.find_first_not_of("0123456789abcdef", kPrefix.size()) != std::string::npos) {
    return Errorf("\"%.100s\" is not \"sha256:\" and 64 hexadecimal digits", digest.c_str());
  }
  return digest.substr(kPrefix.size());
}

}  // namespace cube::templates
