#include "vmm/ring0/decoder.h"

#include <capstone/capstone.h>
#include <elf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "vmm/memory_map.h"
#include "vmm/ring0/handlers.h"

// The decoder's lengths against Capstone's, for random bytes and for the guest kernel's own code.
namespace cube::vmm::ring0 {
namespace {

bool Is(const Op& op, Handler handler) {
  Op other;
  other.set_handler(handler);
  return op.handler == other.handler;
}
bool LeftToOthers(const Op& op) { return Is(op, HandOffHandler()) || Is(op, AssistHandler()); }

class DecoderTest : public testing::Test {
 protected:
  DecoderTest() { cs_open(CS_ARCH_X86, CS_MODE_64, &handle_), insn_ = cs_malloc(handle_); }
  ~DecoderTest() override { cs_free(insn_, 1), cs_close(&handle_); }

  // The length of the instruction at the start of `code`, 0 if Capstone knows none.
  size_t Length(std::span<const uint8_t> code) {
    const uint8_t* at = code.data();
    size_t size = code.size();
    uint64_t address = 0;
    return cs_disasm_iter(handle_, &at, &size, &address, insn_) ? insn_->size : 0;
  }
  std::string Text() const { return std::string(insn_->mnemonic) + " " + insn_->op_str; }

  csh handle_;
  cs_insn* insn_;
};

std::string Hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (uint8_t byte : bytes) {
    char digits[4];
    snprintf(digits, sizeof digits, "%02x ", byte);
    text += digits;
  }
  return text;
}

TEST_F(DecoderTest, LengthsOfRandomBytes) {
  std::mt19937_64 random(7);
  uint64_t compared = 0;
  std::map<std::string, int> unknown;
  for (int i = 0; i < 2000000; ++i) {
    std::array<uint8_t, kMaxInstruction> bytes;
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    // Half of them from the two-byte map, whose prefix is rare.
    if (i % 2 == 0) bytes[0] = 0x0f;
    Op op;
    if (Decode(bytes, 0, &op) == Decoded::kTruncated || LeftToOthers(op)) continue;
    size_t length = Length(bytes);
    if (length == 0) {
      ++unknown[Hex(std::span(bytes).first(2))];
      continue;
    }
    ++compared;
    ASSERT_EQ(op.length, length) << Hex(bytes) << Text();
  }
  printf("%lu lengths compared, %zu openings that Capstone does not know\n", compared,
         unknown.size());
  EXPECT_GT(compared, 500000u);
}

// The prefixes of instructions that end within are all truncated, never shorter instructions.
TEST_F(DecoderTest, Truncation) {
  std::mt19937_64 random(8);
  for (int i = 0; i < 300000; ++i) {
    std::array<uint8_t, kMaxInstruction> bytes;
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    if (i % 2 == 0) bytes[0] = 0x0f;
    Op op;
    if (Decode(bytes, 0, &op) == Decoded::kTruncated || LeftToOthers(op)) continue;
    size_t length = op.length;
    for (size_t cut = 0; cut < length; ++cut) {
      Op cut_op;
      ASSERT_EQ(Decode(std::span(bytes).first(cut), 0, &cut_op), Decoded::kTruncated)
          << Hex(bytes) << cut;
    }
    Op exact;
    Decode(std::span(bytes).first(length), 0, &exact);
    // STI at the end of the bytes is the exception: what follows decides.
    if (bytes[length - 1] != 0xfb) {
      ASSERT_EQ(exact.length, length) << Hex(bytes);
    }
  }
}

Op DecodeAll(std::vector<uint8_t> bytes) {
  Op op;
  Decode(bytes, 0, &op);
  return op;
}

// What the processor refuses must not be carried out.
TEST_F(DecoderTest, RefusedEncodingsAreHandedOff) {
  const std::vector<std::vector<uint8_t>> kRefused = {
      {0xf0, 0x01, 0xc0},              // lock add eax, eax
      {0xf0, 0x39, 0x00},              // lock cmp
      {0xf0, 0x85, 0x00},              // lock test
      {0xf0, 0x89, 0x00},              // lock mov
      {0xf0, 0x0f, 0xa3, 0x00},        // lock bt
      {0xf0, 0x0f, 0xc1, 0xc0},        // lock xadd eax, eax
      {0xf0, 0xd1, 0x00},              // lock rol
      {0xf0, 0x90},                    // lock nop
      {0x8d, 0xc0},                    // lea eax, eax
      {0x0f, 0xc3, 0xc0},              // movnti eax, eax
      {0x0f, 0xba, 0x00, 0x00},        // no such digit
      {0xff, 0x38},                    // no such digit
      {0x66, 0x0f, 0xae, 0xf0},        // tpause
      {0xf3, 0x0f, 0xae, 0x38},        // no such instruction
      {0xf3, 0x0f, 0x01, 0xca},        // erets
      {0xf2, 0x0f, 0x01, 0xca},        // eretu
      {0x66, 0x0f, 0xc3, 0x00},        // movnti with a prefix
      {0x0f, 0x05},                    // syscall
      {0x8e, 0xc8, 0x90},              // mov cs, eax: decoded, refused when it runs
      {0x06},                          // not in 64-bit mode
      {0xd7},                          // xlat
      {0xc8, 0, 0, 0},                 // enter
  };
  for (const auto& bytes : kRefused) {
    Op op = DecodeAll(bytes);
    if (bytes[0] == 0x8e) continue;
    EXPECT_TRUE(LeftToOthers(op)) << Hex(bytes);
  }
}

TEST_F(DecoderTest, InterruptsStayOffBetweenStiAndHalt) {
  Op op;
  const uint8_t kPair[] = {0xfb, 0xf4};
  EXPECT_EQ(Decode(kPair, 0, &op), Decoded::kEnds);
  EXPECT_TRUE(Is(op, HaltHandler()));
  // At the end of a page what follows is not known.
  EXPECT_EQ(Decode(std::span(kPair).first(1), kPageSize - 1, &op), Decoded::kEnds);
  EXPECT_TRUE(Is(op, HandOffHandler()));
}

// ---- The guest kernel

struct Kernel {
  std::vector<uint8_t> file;
  std::span<const uint8_t> text;
  uint64_t address = 0;
  std::vector<uint64_t> functions;  // starts, in order
};

std::span<const uint8_t> Section(const std::vector<uint8_t>& file, const Elf64_Shdr& header) {
  return std::span(file).subspan(header.sh_offset, header.sh_size);
}

Kernel LoadKernel() {
  Kernel kernel;
  std::ifstream in("guestkernel/vmlinux", std::ios::binary);
  kernel.file.assign(std::istreambuf_iterator<char>(in), {});
  if (kernel.file.size() < sizeof(Elf64_Ehdr)) return kernel;
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(kernel.file.data());
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(kernel.file.data() + header->e_shoff);
  auto names = Section(kernel.file, sections[header->e_shstrndx]);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (strcmp(reinterpret_cast<const char*>(names.data()) + sections[i].sh_name, ".text") != 0) {
      continue;
    }
    kernel.text = Section(kernel.file, sections[i]);
    kernel.address = sections[i].sh_addr;
  }
  // The file has no symbols: "ADDRESS TYPE NAME", T and t being code.
  std::ifstream map("guestkernel/System.map");
  std::string address, type, name;
  while (map >> address >> type >> name) {
    uint64_t value = std::stoull(address, nullptr, 16);
    if ((type == "T" || type == "t") && value - kernel.address < kernel.text.size()) {
      kernel.functions.push_back(value);
    }
  }
  std::sort(kernel.functions.begin(), kernel.functions.end());
  kernel.functions.erase(std::unique(kernel.functions.begin(), kernel.functions.end()),
                         kernel.functions.end());
  return kernel;
}

TEST_F(DecoderTest, GuestKernel) {
  Kernel kernel = LoadKernel();
  ASSERT_FALSE(kernel.text.empty());
  ASSERT_FALSE(kernel.functions.empty());
  // Seldom run, or nothing that could be done better here. A mnemonic that is not here must not
  // appear: it would cost an entry into KVM each time.
  const std::set<std::string> kExpected = {
      "cpuid",     "emms",      "fild",      "fnclex",    "fninit",    "fxrstor64", "fxsave64",
      "invpcid",   "lar",       "ldmxcsr",   "lgdt",      "lidt",      "ljmp",      "lldt",
      "lsl",       "ltr",       "monitor",   "movabs",    "mwait",     "rdpmc",     "rdrand",
      "rdseed",    "rep insb",  "rep insd",  "rep insw",  "rep outsb", "rep outsd", "rep outsw",
      "retfq",     "sgdt",      "sidt",      "sldt",      "stgi",      "str",       "sysret",
      "ud2b",      "verw",      "vmcall",    "wait",      "wbinvd",    "xgetbv",    "xrstor64",
      "mov debug register", "xrstors64", "xsave64",   "xsaves64",  "xsetbv"};
  std::map<std::string, uint64_t> handed_off;
  uint64_t instructions = 0, bytes = 0, disagreements = 0;
  for (size_t i = 0; i < kernel.functions.size(); ++i) {
    uint64_t end = i + 1 < kernel.functions.size() ? kernel.functions[i + 1]
                                                   : kernel.address + kernel.text.size();
    uint64_t start = kernel.functions[i];
    auto code = kernel.text.subspan(start - kernel.address, end - start);
    while (!code.empty()) {
      size_t length = Length(code);
      if (length == 0) break;  // data, or an instruction Capstone is too old for
      Op op;
      Decoded decoded = Decode(code, 0, &op);
      ++instructions;
      bytes += length;
      if (decoded == Decoded::kTruncated) {
        if (++disagreements < 10) ADD_FAILURE() << Hex(code.first(length)) << Text();
      } else if (LeftToOthers(op)) {
        bool debug = strstr(insn_->op_str, "dr") != nullptr;
        ++handed_off[std::string(insn_->mnemonic) + (debug ? " debug register" : "")];
      } else if (op.length != length) {
        if (++disagreements < 10) {
          ADD_FAILURE() << Hex(code.first(length)) << Text() << ": " << int{op.length};
        }
      }
      code = code.subspan(length);
    }
  }
  EXPECT_EQ(disagreements, 0u);
  printf("%lu instructions in %lu of %zu bytes; left to others:\n", instructions, bytes,
         kernel.text.size());
  for (const auto& [mnemonic, count] : handed_off) {
    printf("  %-12s %lu\n", mnemonic.c_str(), count);
    EXPECT_TRUE(kExpected.contains(mnemonic)) << mnemonic << " is handed off " << count << " times";
  }
  EXPECT_GT(instructions, 100000u);
}

}  // namespace
}  // namespace cube::vmm::ring0
