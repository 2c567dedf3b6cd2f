#include "vmm/cpuid.h"

#include <bit>

namespace cube::vmm {
namespace {

constexpr uint32_t Bit(int n) { return 1u << n; }

// CPUID 0x40000001 EAX (Linux Documentation/virt/kvm/x86/cpuid.rst): the clock, and nothing that
// makes the guest call or expect to be called.
constexpr uint32_t kKvmClockFeatures = Bit(0) | Bit(1) | Bit(3) | Bit(24);

// One package of single-threaded cores, leaf 0xB and 0x1F (Intel SDM volume 2, CPUID).
void AddTopology(uint32_t leaf, const CpuidOptions& options,
                 std::vector<kvm_cpuid_entry2>* entries) {
  uint32_t core_bits = static_cast<uint32_t>(std::bit_width(options.vcpu_count - 1));
  const struct {
    uint32_t shift, count, type;
  } kLevels[] = {{0, 1, 1}, {core_bits, options.vcpu_count, 2}, {0, 0, 0}};
  for (uint32_t index = 0; index < 3; ++index) {
    kvm_cpuid_entry2 entry = {};
    entry.function = leaf;
    entry.index = index;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    entry.eax = kLevels[index].shift;
    entry.ebx = kLevels[index].count;
    entry.ecx = index | kLevels[index].type << 8;
    entry.edx = options.vcpu_id;
    entries->push_back(entry);
  }
}

void ShapeEntry(const CpuidOptions& options, kvm_cpuid_entry2* entry) {
  uint32_t cores = options.vcpu_count - 1;
  switch (entry->function) {
    case 0x1:
      entry->ebx = (entry->ebx & 0xffff) | options.vcpu_count << 16 | options.vcpu_id << 24;
      entry->ecx |= Bit(31);                  // a hypervisor is present
      entry->ecx &= ~(Bit(3) | Bit(5));       // MONITOR, VMX
      if (options.tsc_deadline_timer) entry->ecx |= Bit(24);
      entry->edx = options.vcpu_count > 1 ? entry->edx | Bit(28) : entry->edx & ~Bit(28);
      break;
    case 0x4:
      // Each core has its own caches but the last level, which all share.
      if ((entry->eax & 0x1f) != 0) {
        bool last_level = (entry->eax >> 5 & 7) == 3;
        entry->eax = (entry->eax & 0x3fff) | cores << 26 | (last_level ? cores << 14 : 0);
      }
      break;
    case 0x5:
    case 0xa:
    case 0x80000022:
      entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
      break;
    case 0x7:
      if (entry->index == 0) {
        entry->ecx &= ~(Bit(3) | Bit(4) | Bit(16));  // PKU, OSPKE, LA57
      }
      break;
    case 0xd:
      if (entry->index == 1) {
        entry->ebx = entry->ecx = entry->edx = 0;  // supervisor components
      }
      break;
    case 0x40000001:
      if (options.hide_hypercalls) entry->eax &= kKvmClockFeatures;
      break;
    case 0x80000001:
      entry->ecx &= ~Bit(2);  // SVM
      break;
    case 0x80000008: {
      uint32_t bits = static_cast<uint32_t>(std::bit_width(cores));
      entry->ecx = (entry->ecx & ~0xf0ffu) | cores | bits << 12;
      break;
    }
    case 0x8000001d:
      if ((entry->eax & 0x1f) != 0) {
        bool last_level = (entry->eax >> 5 & 7) == 3;
        entry->eax = (entry->eax & 0x3fff) | (last_level ? cores << 14 : 0);
      }
      break;
    case 0x8000001e:
      entry->eax = options.vcpu_id;
      entry->ebx = options.vcpu_id;  // one thread per core
      entry->ecx = 0;
      break;
    default:
      break;
  }
}

}  // namespace

std::vector<kvm_cpuid_entry2> ShapeCpuid(std::span<const kvm_cpuid_entry2> supported,
                                         const CpuidOptions& options) {
  std::vector<kvm_cpuid_entry2> entries;
  entries.reserve(supported.size() + 3);
  bool has_topology = false;
  for (kvm_cpuid_entry2 entry : supported) {
    if (entry.function == 0x8000000a) continue;  // SVM's own leaf
    if (entry.function == 0xb || entry.function == 0x1f) {
      if (entry.function == 0xb && !has_topology) {
        has_topology = true;
        AddTopology(0xb, options, &entries);
      }
      continue;
    }
    ShapeEntry(options, &entry);
    entries.push_back(entry);
  }
  return entries;
}

uint8_t PhysicalAddressBits(std::span<const kvm_cpuid_entry2> entries) {
  for (const kvm_cpuid_entry2& entry : entries) {
    if (entry.function == 0x80000008) return static_cast<uint8_t>(entry.eax);
  }
  return 36;  // what a processor without the leaf has (SDM volume 3, 4.1.4)
}

}  // namespace cube::vmm
