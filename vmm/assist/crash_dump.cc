#include "vmm/assist/crash_dump.h"

#include <cstdio>
#include <cstring>
#include <memory>

#include "vmm/assist/guest_virtual.h"

namespace cube::vmm {
namespace {

constexpr size_t kCodeBytes = 64;
constexpr size_t kInstructions = 8;
constexpr size_t kStackWords = 8;

unsigned long long Wide(uint64_t value) { return value; }

std::string AddressText(const std::string& system_map, uint64_t address) {
  std::string symbol = system_map.empty() ? "" : SymbolAt(system_map, address);
  return symbol.empty() ? Format("%#llx", Wide(address))
                        : Format("%#llx (%s)", Wide(address), symbol.c_str());
}

}  // namespace

std::string SymbolAt(const std::string& system_map, uint64_t address) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(system_map.c_str(), "re"), fclose);
  if (file == nullptr) return "";
  char line[512], name[256];
  std::string best;
  uint64_t best_address = 0;
  while (fgets(line, sizeof line, file.get()) != nullptr) {
    unsigned long long at = 0;
    char type = 0;
    if (sscanf(line, "%llx %c %255s", &at, &type, name) != 3) continue;
    if (strchr("tTwW", type) == nullptr || at > address || at < best_address) continue;
    best = name;
    best_address = at;
  }
  // A symbol from far below does not contain the address.
  if (best.empty() || address - best_address > 0x100000) return "";
  return Format("%s+%#llx", best.c_str(), Wide(address - best_address));
}

std::string CrashDump(KvmVcpu* vcpu, const GuestMemory& memory, const std::string& system_map) {
  auto regs_or = vcpu->regs();
  auto sregs_or = vcpu->sregs();
  if (!regs_or.ok() || !sregs_or.ok()) return "registers cannot be read\n";
  const kvm_regs& r = *regs_or.value();
  const kvm_sregs& s = *sregs_or.value();
  std::string text = Format("vCPU %u at %s, ring %u\n", vcpu->id(),
                            AddressText(system_map, r.rip).c_str(), s.cs.dpl);
  text += Format("rax %016llx rbx %016llx rcx %016llx rdx %016llx\n", r.rax, r.rbx, r.rcx, r.rdx);
  text += Format("rsi %016llx rdi %016llx rbp %016llx rsp %016llx\n", r.rsi, r.rdi, r.rbp, r.rsp);
  text += Format("r8  %016llx r9  %016llx r10 %016llx r11 %016llx\n", r.r8, r.r9, r.r10, r.r11);
  text += Format("r12 %016llx r13 %016llx r14 %016llx r15 %016llx\n", r.r12, r.r13, r.r14, r.r15);
  text += Format("rip %016llx rflags %08llx cs %04x ss %04x fs %llx gs %llx\n", r.rip, r.rflags,
                 s.cs.selector, s.ss.selector, s.fs.base, s.gs.base);
  text += Format("cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx idt %llx gdt %llx\n", s.cr0, s.cr2,
                 s.cr3, s.cr4, s.efer, s.idt.base, s.gdt.base);
  GuestVirtual guest(memory, s, r.rflags);
  uint8_t code[kCodeBytes];
  size_t size = guest.PeekBytes(r.rip, code);
  if (size == 0) {
    text += "the code at rip is not mapped\n";
  } else {
    InstructionDecoder decoder;
    std::string lines = decoder.Disassemble({code, size}, r.rip, kInstructions);
    text += lines.empty() ? "the bytes at rip are no instruction\n" : lines;
  }
  uint64_t stack[kStackWords];
  size_t words =
      guest.PeekBytes(r.rsp, {reinterpret_cast<uint8_t*>(stack), sizeof stack}) / sizeof stack[0];
  for (size_t i = 0; i < words; ++i) {
    text += Format("  [rsp+%02zx] %s\n", i * 8, AddressText(system_map, stack[i]).c_str());
  }
  return text;
}

}  // namespace cube::vmm
