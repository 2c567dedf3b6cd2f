#include "vmm/loader/test_images.h"

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cube::vmm::testing {
namespace {

constexpr size_t kSetupHeaderOffset = offsetof(boot_params, hdr);
constexpr size_t kSectorSize = 512;
constexpr size_t kLz4BlockSize = 8 << 20;

void Require(bool ok) {
  if (!ok) abort();
}

void AppendLe32(Image& image, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) image.push_back(static_cast<uint8_t>(value >> shift));
}

}  // namespace

Image MakeElf(uint64_t entry, const std::vector<TestSegment>& segments) {
  Elf64_Ehdr header = {};
  memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_entry = entry;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<uint16_t>(segments.size());
  Image image(sizeof header + segments.size() * sizeof(Elf64_Phdr));
  memcpy(image.data(), &header, sizeof header);
  for (size_t i = 0; i < segments.size(); ++i) {
    const TestSegment& segment = segments[i];
    Elf64_Phdr program = {};
    program.p_type = PT_LOAD;
    program.p_flags = PF_R | PF_X;
    program.p_offset = image.size();
    program.p_vaddr = 0xffffffff80000000 + segment.address;
    program.p_paddr = segment.address;
    program.p_filesz = segment.content.size();
    program.p_memsz = segment.memory_size;
    memcpy(image.data() + sizeof header + i * sizeof program, &program, sizeof program);
    image.insert(image.end(), segment.content.begin(), segment.content.end());
  }
  return image;
}

Image MakeVmlinux() {
  Image first(600);
  for (size_t i = 0; i < first.size(); ++i) first[i] = static_cast<uint8_t>(i * 7 + 1);
  return MakeElf(0x100000, {{0x100000, first, 0x2000}, {0x200000, Image(100, 0xcc), 100}});
}

Elf64_Ehdr& ElfHeader(Image& elf) { return *reinterpret_cast<Elf64_Ehdr*>(elf.data()); }

Elf64_Phdr& ProgramHeader(Image& elf, size_t index) {
  return reinterpret_cast<Elf64_Phdr*>(elf.data() + sizeof(Elf64_Ehdr))[index];
}

Image MakeBzImage(std::span<const uint8_t> payload) {
  constexpr uint32_t kPayloadOffset = 32;  // after some code of the protected-mode kernel
  constexpr size_t kPayloadStart = 2 * kSectorSize + kPayloadOffset;
  Image image(kPayloadStart + payload.size());
  setup_header& header = SetupHeader(image);
  header.setup_sects = 1;
  header.boot_flag = 0xaa55;
  constexpr size_t kHeaderEnd = kSetupHeaderOffset + sizeof header;
  header.jump = static_cast<uint16_t>(0xeb | (kHeaderEnd - 0x202) << 8);
  header.header = 0x53726448;
  header.version = 0x020f;
  header.cmdline_size = 2047;
  header.kernel_alignment = 0x200000;
  header.payload_offset = kPayloadOffset;
  header.payload_length = static_cast<uint32_t>(payload.size());
  std::copy(payload.begin(), payload.end(), image.begin() + kPayloadStart);
  return image;
}

setup_header& SetupHeader(Image& bz_image) {
  return *reinterpret_cast<setup_header*>(bz_image.data() + kSetupHeaderOffset);
}

Image PackLz4(std::span<const uint8_t> data) {
  Image packed;
  AppendLe32(packed, 0x184c2102);
  while (!data.empty()) {
    std::span<const uint8_t> block = data.first(std::min(data.size(), kLz4BlockSize));
    std::vector<char> out(static_cast<size_t>(LZ4_compressBound(static_cast<int>(block.size()))));
    int size = LZ4_compress_default(reinterpret_cast<const char*>(block.data()), out.data(),
                                    static_cast<int>(block.size()), static_cast<int>(out.size()));
    Require(size > 0);
    AppendLe32(packed, static_cast<uint32_t>(size));
    packed.insert(packed.end(), out.begin(), out.begin() + size);
    data = data.subspan(block.size());
  }
  return packed;
}

Image PackGzip(std::span<const uint8_t> data) {
  z_stream stream = {};
  Require(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  Image packed(deflateBound(&stream, data.size()));
  stream.next_in = const_cast<Bytef*>(data.data());
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  Require(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

Image PackZstd(std::span<const uint8_t> data) {
  Image packed(ZSTD_compressBound(data.size()));
  size_t size = ZSTD_compress(packed.data(), packed.size(), data.data(), data.size(), 3);
  Require(!ZSTD_isError(size));
  packed.resize(size);
  return packed;
}

Image PackXz(std::span<const uint8_t> data) {
  Image packed(lzma_stream_buffer_bound(data.size()));
  size_t size = 0;
  Require(lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, nullptr, data.data(), data.size(),
                                  packed.data(), &size, packed.size()) == LZMA_OK);
  packed.resize(size);
  return packed;
}

Image WithLength(Image packed, std::span<const uint8_t> data) {
  AppendLe32(packed, static_cast<uint32_t>(data.size()));
  return packed;
}

std::string WriteTempFile(const std::string& name, std::span<const uint8_t> content) {
  const char* folder = getenv("TEST_TMPDIR");
  std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/" + name;
  FILE* file = fopen(path.c_str(), "wb");
  Require(file != nullptr);
  if (!content.empty()) {
    Require(fwrite(content.data(), 1, content.size(), file) == content.size());
  }
  Require(fclose(file) == 0);
  return path;
}

}  // namespace cube::vmm::testing
