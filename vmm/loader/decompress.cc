#include "vmm/loader/decompress.h"

#include <lz4.h>
#include <lzma.h>
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cinttypes>
#include <climits>
#include <cstring>

#include "vmm/loader/hex.h"

namespace cube::vmm {
namespace {

using Bytes = std::span<const uint8_t>;

constexpr uint32_t kLz4LegacyMagic = 0x184c2102;
// The legacy frame has no header: every block but the last decompresses to this size.
constexpr uint32_t kLz4BlockSize = 8 << 20;
constexpr uint32_t kLz4MaxPackedBlock = LZ4_COMPRESSBOUND(kLz4BlockSize);
// Linux compresses with a dictionary of at most 128 MiB (scripts/xz_wrap.sh); the decoder needs
// that and a little more.
constexpr uint64_t kXzMemoryLimit = 192 << 20;

uint32_t LoadLe32(const uint8_t* p) {
  return p[0] | p[1] << 8 | p[2] << 16 | static_cast<uint32_t>(p[3]) << 24;
}

Error OverLimit(const char* format, uint64_t limit) {
  return Errorf("%s data gives more than the limit of %" PRIu64 " bytes", format, limit);
}

Result<Mapping> ReserveOutput(uint64_t size) {
  return Mapping::Map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                      -1, 0, "a decompressed kernel");
}

// Linux lib/decompress_unlz4.c reads the same format: the magic, then blocks of a 32-bit length
// and that many bytes, until the data ends.
Result<DecompressedImage> DecompressLz4(Bytes data, uint64_t limit) {
  // A whole block of slack, because LZ4 does not tell a corrupt block from one that does not fit.
  CUBE_ASSIGN(Mapping out, ReserveOutput(limit + kLz4BlockSize));
  uint64_t size = 0;
  size_t at = 0;
  while (data.size() - at >= 4) {
    uint32_t packed = LoadLe32(data.data() + at);
    at += 4;
    // Frames may follow each other, each with its magic.
    if (packed == kLz4LegacyMagic) continue;
    // The length of the output, which the Linux build appends, has nothing behind it.
    if (packed == size && at == data.size()) break;
    if (packed == 0) break;
    if (packed > kLz4MaxPackedBlock) {
      return Errorf("corrupt lz4 data: block of %" PRIu32 " bytes at byte %zu, at most %" PRIu32
                    " are possible",
                    packed, at, kLz4MaxPackedBlock);
    }
    if (packed > data.size() - at) {
      return Errorf("truncated lz4 data: block of %" PRIu32 " bytes at byte %zu, %zu are left",
                    packed, at, data.size() - at);
    }
    int unpacked = LZ4_decompress_safe(reinterpret_cast<const char*>(data.data() + at),
                                       reinterpret_cast<char*>(out.data() + size),
                                       static_cast<int>(packed), static_cast<int>(kLz4BlockSize));
    if (unpacked < 0) {
      return Errorf("corrupt lz4 data: bad block of %" PRIu32 " bytes at byte %zu", packed, at);
    }
    size += static_cast<uint64_t>(unpacked);
    if (size > limit) return OverLimit("lz4", limit);
    at += packed;
  }
  return DecompressedImage(std::move(out), size);
}

Result<DecompressedImage> DecompressGzip(Bytes data, uint64_t limit) {
  struct Inflater {
    z_stream stream = {};
    ~Inflater() { inflateEnd(&stream); }
  } inflater;
  z_stream& stream = inflater.stream;
  // 16 asks for the gzip wrapper, with its checksum verified.
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) {
    return Errorf("no memory for the gzip decoder");
  }
  CUBE_ASSIGN(Mapping out, ReserveOutput(limit));
  size_t taken = 0;
  uint64_t size = 0;
  for (;;) {
    auto in_piece = static_cast<uInt>(std::min<uint64_t>(data.size() - taken, UINT_MAX));
    auto out_piece = static_cast<uInt>(std::min<uint64_t>(limit - size, UINT_MAX));
    stream.next_in = const_cast<Bytef*>(data.data() + taken);
    stream.avail_in = in_piece;
    stream.next_out = out.data() + size;
    stream.avail_out = out_piece;
    int result = inflate(&stream, Z_NO_FLUSH);
    taken += in_piece - stream.avail_in;
    size += out_piece - stream.avail_out;
    if (result == Z_STREAM_END) return DecompressedImage(std::move(out), size);
    if (result == Z_OK) continue;
    // No progress: either side has run out.
    if (result == Z_BUF_ERROR && taken == data.size()) {
      return Errorf("truncated gzip data: it has no end within its %zu bytes", data.size());
    }
    if (result == Z_BUF_ERROR) return OverLimit("gzip", limit);
    return Errorf("corrupt gzip data at byte %zu: %s", taken,
                  stream.msg != nullptr ? stream.msg : zError(result));
  }
}

Result<DecompressedImage> DecompressZstd(Bytes data, uint64_t limit) {
  // Decoding one whole frame into one buffer needs no window, however large the frame's is.
  size_t frame = ZSTD_findFrameCompressedSize(data.data(), data.size());
  if (ZSTD_isError(frame)) {
    return Errorf("corrupt or truncated zstd data of %zu bytes: %s", data.size(),
                  ZSTD_getErrorName(frame));
  }
  CUBE_ASSIGN(Mapping out, ReserveOutput(limit));
  size_t size = ZSTD_decompress(out.data(), out.size(), data.data(), frame);
  if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall) return OverLimit("zstd", limit);
  if (ZSTD_isError(size)) return Errorf("corrupt zstd data: %s", ZSTD_getErrorName(size));
  return DecompressedImage(std::move(out), size);
}

Result<DecompressedImage> DecompressXz(Bytes data, uint64_t limit) {
  struct Decoder {
    lzma_stream stream = LZMA_STREAM_INIT;
    ~Decoder() { lzma_end(&stream); }
  } decoder;
  lzma_stream& stream = decoder.stream;
  if (lzma_stream_decoder(&stream, kXzMemoryLimit, 0) != LZMA_OK) {
    return Errorf("no memory for the xz decoder");
  }
  CUBE_ASSIGN(Mapping out, ReserveOutput(limit));
  stream.next_in = data.data();
  stream.avail_in = data.size();
  stream.next_out = out.data();
  stream.avail_out = out.size();
  // Not lzma_stream_buffer_decode: it gives one error for data cut short and for too much output.
  lzma_ret result;
  do {
    result = lzma_code(&stream, LZMA_FINISH);
  } while (result == LZMA_OK);
  switch (result) {
    case LZMA_STREAM_END:
      return DecompressedImage(std::move(out), stream.total_out);
    case LZMA_BUF_ERROR:
      if (stream.avail_in > 0) return OverLimit("xz", limit);
      return Errorf("truncated xz data: it has no end within its %zu bytes", data.size());
    case LZMA_MEMLIMIT_ERROR:
      return Errorf("xz data needs %" PRIu64 " bytes of memory to decode, at most %" PRIu64
                    " are given",
                    lzma_memusage(&stream), kXzMemoryLimit);
    case LZMA_MEM_ERROR:
      return Errorf("no memory for the xz decoder");
    default:
      return Errorf("corrupt xz data at byte %" PRIu64 " (lzma error %d)", stream.total_in,
                    static_cast<int>(result));
  }
}

enum class Format { kLz4, kGzip, kZstd, kXz, kUnsupported };

struct Signature {
  Format format;
  const char* name;
  uint8_t magic[6];
  size_t magic_size;
};

constexpr Signature kSignatures[] = {
    {Format::kLz4, "lz4", {0x02, 0x21, 0x4c, 0x18}, 4},
    {Format::kGzip, "gzip", {0x1f, 0x8b}, 2},
    {Format::kZstd, "zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4},
    {Format::kXz, "xz", {0xfd, '7', 'z', 'X', 'Z', 0x00}, 6},
    {Format::kUnsupported, "bzip2", {'B', 'Z', 'h'}, 3},
    {Format::kUnsupported, "lzma", {0x5d, 0x00, 0x00}, 3},
    {Format::kUnsupported, "lzo", {0x89, 'L', 'Z', 'O', 0x00, 0x0d}, 6},
    {Format::kUnsupported, "lz4 (not in the legacy frame)", {0x04, 0x22, 0x4d, 0x18}, 4},
};

// The signature that `data` begins with, or null.
const Signature* FindSignature(Bytes data) {
  for (const Signature& signature : kSignatures) {
    if (data.size() >= signature.magic_size &&
        memcmp(data.data(), signature.magic, signature.magic_size) == 0) {
      return &signature;
    }
  }
  return nullptr;
}

}  // namespace

Result<DecompressedImage> Decompress(std::span<const uint8_t> data, uint64_t limit) {
  if (limit == 0 || limit > PTRDIFF_MAX - kLz4BlockSize) {
    return Errorf("a limit of %" PRIu64 " bytes for decompressed data is not possible", limit);
  }
  const Signature* signature = FindSignature(data);
  if (signature == nullptr) {
    return Errorf("compressed in an unknown format (begins with %s)", FirstBytes(data).c_str());
  }
  switch (signature->format) {
    case Format::kLz4:
      return DecompressLz4(data, limit);
    case Format::kGzip:
      return DecompressGzip(data, limit);
    case Format::kZstd:
      return DecompressZstd(data, limit);
    case Format::kXz:
      return DecompressXz(data, limit);
    case Format::kUnsupported:
      break;
  }
  return Errorf("compressed with %s; lz4, gzip, zstd and xz are supported", signature->name);
}

}  // namespace cube::vmm
