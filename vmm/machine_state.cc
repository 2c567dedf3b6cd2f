#include "vmm/machine_state.h"

namespace cube::vmm {
namespace {

// Leaves and registers of which each bit is a feature that a program may have found and use.
struct FeatureWord {
  uint32_t function, index;
  uint32_t kvm_cpuid_entry2::*word;
  const char* name;
};
constexpr FeatureWord kFeatureWords[] = {
    {0x1, 0, &kvm_cpuid_entry2::ecx, "1.ECX"},
    {0x1, 0, &kvm_cpuid_entry2::edx, "1.EDX"},
    {0x7, 0, &kvm_cpuid_entry2::ebx, "7.0.EBX"},
    {0x7, 0, &kvm_cpuid_entry2::ecx, "7.0.ECX"},
    {0x7, 0, &kvm_cpuid_entry2::edx, "7.0.EDX"},
    {0x7, 1, &kvm_cpuid_entry2::eax, "7.1.EAX"},
    {0xd, 0, &kvm_cpuid_entry2::eax, "0xd.0.EAX"},
    {0xd, 1, &kvm_cpuid_entry2::eax, "0xd.1.EAX"},
    {0x40000001, 0, &kvm_cpuid_entry2::eax, "0x40000001.EAX"},
    {0x80000001, 0, &kvm_cpuid_entry2::ecx, "0x80000001.ECX"},
    {0x80000001, 0, &kvm_cpuid_entry2::edx, "0x80000001.EDX"},
};

uint32_t Word(std::span<const kvm_cpuid_entry2> entries, const FeatureWord& word) {
  for (const kvm_cpuid_entry2& entry : entries) {
    if (entry.function == word.function && entry.index == word.index) return entry.*word.word;
  }
  return 0;
}

}  // namespace

Status CheckCpuid(std::span<const kvm_cpuid_entry2> saved,
                  std::span<const kvm_cpuid_entry2> offered) {
  for (const FeatureWord& word : kFeatureWords) {
    uint32_t missing = Word(saved, word) & ~Word(offered, word);
    if (missing != 0) {
      return Errorf("this host's processor lacks features that were in use: CPUID %s bits %#x",
                    word.name, missing);
    }
  }
  return OkStatus();
}

}  // namespace cube::vmm
