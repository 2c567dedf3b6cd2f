#ifndef CUBE_VMM_ASSIST_CRASH_DUMP_H_
#define CUBE_VMM_ASSIST_CRASH_DUMP_H_

#include <string>

#include "vmm/assist/instruction.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_vcpu.h"

namespace cube::vmm {

// The address and name of the symbol of a System.map that `address` falls in, as "name+0x12", or
// nothing. The file is read on each call: this is for a VM that has stopped.
std::string SymbolAt(const std::string& system_map, uint64_t address);

// What a person needs to see when a VM stopped on something unforeseen: registers, control
// registers, the code around RIP and the top of the stack. Several lines, ending with a newline.
// `system_map` may be empty. Never fails: what cannot be read is left out.
std::string CrashDump(KvmVcpu* vcpu, const GuestMemory& memory, const std::string& system_map);

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_CRASH_DUMP_H_
