#include "vmm/cli/command_answer.h"

#include <cstdio>

#include "vmm/cli/control_request.h"
#include "vmm/cli/run_options.h"

namespace cube::vmm {

int AnswerError(const Error& error, bool json) {
  if (json) {
    printf("%s\n", ErrorAnswer(error).c_str());
  } else {
    fprintf(stderr, "cube-vmm: %s\n", error.message().c_str());
  }
  return kStatusVmmError;
}

}  // namespace cube::vmm
