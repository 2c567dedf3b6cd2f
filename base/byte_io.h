#ifndef CUBE_BASE_BYTE_IO_H_
#define CUBE_BASE_BYTE_IO_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube {

// Reads all of `out` from `offset` of a file; a shorter file is an error that names `what`.
Status ReadExactAt(int fd, std::span<uint8_t> out, uint64_t offset, const char* what);

// Writes all of `data` to `fd`, which may be a pipe.
Status WriteAll(int fd, std::span<const uint8_t> data, const char* what);

// The content of a small file such as one in /proc or /sys, at most `limit` bytes.
Result<std::string> ReadSmallFile(const std::string& path, size_t limit = 65536);

// The size of an open regular file in bytes; anything else is an error that names `what`.
Result<uint64_t> RegularFileSize(int fd, const char* what);

}  // namespace cube

#endif  // CUBE_BASE_BYTE_IO_H_
