#ifndef CUBE_API_SECRET_H_
#define CUBE_API_SECRET_H_

#include <string>
#include <string_view>

namespace cube::api {

// So many bytes of the kernel's randomness, as lower-case hexadecimal digits.
std::string RandomHex(size_t bytes);

// A random UUID (RFC 9562, version 4).
std::string RandomUuid();

// The SHA-256 in hexadecimal digits.
std::string Sha256Hex(std::string_view bytes);

// The HMAC-SHA-256 of `text` in hexadecimal digits.
std::string HmacHex(std::string_view key, std::string_view text);

// Whether two secrets are the same, in a time that does not tell where they differ.
bool SameSecret(std::string_view a, std::string_view b);

}  // namespace cube::api

#endif  // CUBE_API_SECRET_H_
