#include "vmm/loader/elf_loader.h"

#include <elf.h>

#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <optional>
#include <vector>

#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

// A vmlinux has five or six.
constexpr uint16_t kMaxProgramHeaders = 64;

// A PT_LOAD segment whose ranges have been checked.
struct Segment {
  uint16_t index;
  uint64_t address;
  std::span<const uint8_t> content;
  std::span<uint8_t> target;

  uint64_t end() const { return address + target.size(); }
};

Status CheckHeader(std::span<const uint8_t> file, const Elf64_Ehdr& header) {
  if (header.e_ident[EI_CLASS] != ELFCLASS64) {
    return Errorf("ELF class %u, only 64-bit (%u) is supported", header.e_ident[EI_CLASS],
                  ELFCLASS64);
  }
  if (header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_machine != EM_X86_64) {
    return Errorf("ELF for machine %u, only x86-64 (%u) is supported", header.e_machine,
                  EM_X86_64);
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    return Errorf("ELF of type %u, only executables (%u, %u) are supported", header.e_type,
                  ET_EXEC, ET_DYN);
  }
  if (header.e_phentsize != sizeof(Elf64_Phdr)) {
    return Errorf("ELF program headers of %u bytes, they must have %zu", header.e_phentsize,
                  sizeof(Elf64_Phdr));
  }
  if (header.e_phnum == 0 || header.e_phnum > kMaxProgramHeaders) {
    return Errorf("ELF with %u program headers, between 1 and %u are supported", header.e_phnum,
                  kMaxProgramHeaders);
  }
  uint64_t size = uint64_t{header.e_phnum} * sizeof(Elf64_Phdr);
  if (header.e_phoff > file.size() || size > file.size() - header.e_phoff) {
    return Errorf("truncated: %" PRIu64 " bytes of program headers at byte 0x%" PRIx64
                  ", the file has 0x%zx",
                  size, header.e_phoff, file.size());
  }
  return OkStatus();
}

Result<Segment> CheckSegment(std::span<const uint8_t> file, const GuestMemory& memory,
                             uint16_t index, const Elf64_Phdr& header) {
  if (header.p_filesz > header.p_memsz) {
    return Errorf("ELF segment %u has 0x%" PRIx64 " bytes in the file, more than its 0x%" PRIx64
                  " in memory",
                  index, header.p_filesz, header.p_memsz);
  }
  if (header.p_offset > file.size() || header.p_filesz > file.size() - header.p_offset) {
    return Errorf("truncated: ELF segment %u has 0x%" PRIx64 " bytes at byte 0x%" PRIx64
                  ", the file has 0x%zx",
                  index, header.p_filesz, header.p_offset, file.size());
  }
  if (header.p_paddr < kHighMemoryStart) {
    return Errorf("ELF segment %u is loaded at 0x%" PRIx64 ", below 1 MiB", index,
                  header.p_paddr);
  }
  // Not above the hole: the page tables the kernel starts with end at 4 GiB.
  uint64_t ram_end = memory.low_ram_end();
  std::optional<std::span<uint8_t>> target;
  if (header.p_paddr < ram_end && header.p_memsz <= ram_end - header.p_paddr) {
    target = memory.Slice(header.p_paddr, header.p_memsz);
  }
  if (!target) {
    return Errorf("ELF segment %u of 0x%" PRIx64 " bytes at 0x%" PRIx64
                  " is outside the guest's low RAM, which ends at 0x%" PRIx64,
                  index, header.p_memsz, header.p_paddr, ram_end);
  }
  return Segment{index, header.p_paddr, file.subspan(header.p_offset, header.p_filesz), *target};
}

Result<std::vector<Segment>> CheckSegments(std::span<const uint8_t> file, const GuestMemory& memory,
                                           const Elf64_Ehdr& header) {
  std::vector<Segment> segments;
  for (uint16_t i = 0; i < header.e_phnum; ++i) {
    // Copied out: the offset in the file need not be aligned.
    Elf64_Phdr program;
    memcpy(&program, file.data() + header.e_phoff + i * sizeof program, sizeof program);
    if (program.p_type != PT_LOAD || program.p_memsz == 0) continue;
    CUBE_ASSIGN(Segment segment, CheckSegment(file, memory, i, program));
    segments.push_back(segment);
  }
  if (segments.empty()) return Errorf("ELF without a segment to load");
  std::sort(segments.begin(), segments.end(),
            [](const Segment& a, const Segment& b) { return a.address < b.address; });
  for (size_t i = 1; i < segments.size(); ++i) {
    if (segments[i].address >= segments[i - 1].end()) continue;
    return Errorf("ELF segment %u at 0x%" PRIx64 " overlaps segment %u, which ends at 0x%" PRIx64,
                  segments[i].index, segments[i].address, segments[i - 1].index,
                  segments[i - 1].end());
  }
  return segments;
}

// Reading a page of anonymous memory nobody wrote maps the host's shared page of zeros and
// allocates none, so pages that are zero are only read.
void Zero(std::span<uint8_t> bytes) {
  while (!bytes.empty()) {
    // Host pages, of which a segment may begin in the middle.
    size_t in_page = kPageSize - reinterpret_cast<uintptr_t>(bytes.data()) % kPageSize;
    std::span<uint8_t> piece = bytes.first(std::min(in_page, bytes.size()));
    bool zero = piece[0] == 0 && memcmp(piece.data(), piece.data() + 1, piece.size() - 1) == 0;
    if (!zero) memset(piece.data(), 0, piece.size());
    bytes = bytes.subspan(piece.size());
  }
}

}  // namespace

bool IsElf(std::span<const uint8_t> file) {
  return file.size() >= SELFMAG && memcmp(file.data(), ELFMAG, SELFMAG) == 0;
}

Result<LoadedKernel> LoadElf(std::span<const uint8_t> file, const GuestMemory& memory) {
  if (!IsElf(file)) return Errorf("not an ELF file");
  Elf64_Ehdr header;
  if (file.size() < sizeof header) {
    return Errorf("truncated: the ELF header has %zu bytes, the file has %zu", sizeof header,
                  file.size());
  }
  memcpy(&header, file.data(), sizeof header);
  CUBE_TRY(CheckHeader(file, header));
  CUBE_ASSIGN(std::vector<Segment> segments, CheckSegments(file, memory, header));
  bool entry_found = false;
  for (const Segment& segment : segments) {
    entry_found |= header.e_entry >= segment.address &&
                   header.e_entry - segment.address < segment.content.size();
  }
  if (!entry_found) {
    return Errorf("ELF entry 0x%" PRIx64 " is not in a loaded segment", header.e_entry);
  }
  for (const Segment& segment : segments) {
    if (!segment.content.empty()) {
      memcpy(segment.target.data(), segment.content.data(), segment.content.size());
    }
    Zero(segment.target.subspan(segment.content.size()));
  }
  LoadedKernel kernel;
  kernel.entry = header.e_entry;
  kernel.start = segments.front().address;
  kernel.end = segments.back().end();
  return kernel;
}

}  // namespace cube::vmm
