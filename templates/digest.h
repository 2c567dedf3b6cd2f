#ifndef CUBE_TEMPLATES_DIGEST_H_
#define CUBE_TEMPLATES_DIGEST_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

struct evp_md_ctx_st;

namespace cube::templates {

// SHA-256 of what is added piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Add(std::span<const uint8_t> bytes);
  void Add(std::string_view text);
  // The length before the text, so that what follows it cannot be taken for a part of it.
  void AddField(std::string_view text);
  // 64 hexadecimal digits. Nothing is added after.
  std::string Finish();

 private:
  evp_md_ctx_st* context_;
};

// That of a whole file, from its start.
Result<std::string> FileSha256(int fd, const std::string& path);

// The digits of "sha256:DIGITS"; an error for anything else, which may be hostile.
Result<std::string> ParseDigest(const std::string& digest);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_DIGEST_H_
