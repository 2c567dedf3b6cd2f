#include "vmm/cli/filters.h"

#include <cstdint>

#include "base/unique_fd.h"
#include "vmm/cli/option_words.h"

namespace cube::vmm {

Result<Filters> Filters::Of(const std::string& words) {
  Filters filters;
  if (words.empty()) return filters;
  const std::string_view text = words;
  const size_t comma = std::min(text.find(','), text.size());
  auto machine = WholeNumber(text.substr(0, comma), INT32_MAX);
  auto vcpu = WholeNumber(text.substr(std::min(comma + 1, text.size())), INT32_MAX);
  if (!machine || !vcpu) return Errorf("\"%s\" is not MACHINE,VCPU", words.c_str());
  UniqueFd of_machine(static_cast<int>(*machine)), of_vcpu(static_cast<int>(*vcpu));
  CUBE_ASSIGN(filters.machine, SyscallFilter::Read(of_machine.get()));
  CUBE_ASSIGN(SyscallFilter for_vcpus, SyscallFilter::Read(of_vcpu.get()));
  SyscallFilter::SetForVcpus(std::move(for_vcpus));
  return filters;
}

}  // namespace cube::vmm
