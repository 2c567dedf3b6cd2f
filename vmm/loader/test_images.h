#ifndef CUBE_VMM_LOADER_TEST_IMAGES_H_
#define CUBE_VMM_LOADER_TEST_IMAGES_H_

#include <asm/bootparam.h>
#include <elf.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

// Kernel images made in memory, for the tests and the fuzzer of this folder.
namespace cube::vmm::testing {

using Image = std::vector<uint8_t>;

struct TestSegment {
  uint64_t address;
  Image content;
  uint64_t memory_size;  // with the bss behind the content
};

// An ELF executable for x86-64: header, program headers, contents.
Image MakeElf(uint64_t entry, const std::vector<TestSegment>& segments);

// A small valid vmlinux: 600 bytes of content and 0x2000 of memory at 1 MiB, entered at its start,
// and 100 bytes at 2 MiB.
Image MakeVmlinux();

// The headers of an image made by MakeElf, to be spoiled.
Elf64_Ehdr& ElfHeader(Image& elf);
Elf64_Phdr& ProgramHeader(Image& elf, size_t index);

// A bzImage with one setup sector and boot protocol 2.15 around a payload.
Image MakeBzImage(std::span<const uint8_t> payload);
setup_header& SetupHeader(Image& bz_image);

Image PackLz4(std::span<const uint8_t> data);
Image PackGzip(std::span<const uint8_t> data);
Image PackZstd(std::span<const uint8_t> data);
Image PackXz(std::span<const uint8_t> data);

// `packed` followed by the 32-bit length of `data`, as the Linux build appends it.
Image WithLength(Image packed, std::span<const uint8_t> data);

// Writes a file of the test's temporary folder and gives its path.
std::string WriteTempFile(const std::string& name, std::span<const uint8_t> content);

}  // namespace cube::vmm::testing

#endif  // CUBE_VMM_LOADER_TEST_IMAGES_H_
