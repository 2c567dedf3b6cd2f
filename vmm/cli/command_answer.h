#ifndef CUBE_VMM_CLI_COMMAND_ANSWER_H_
#define CUBE_VMM_CLI_COMMAND_ANSWER_H_

#include "base/result.h"

namespace cube::vmm {

// How a command that has failed says so: one line on stderr or, if `json`, {"ok":false,"error":...}
// on stdout. Returns the process's exit status.
int AnswerError(const Error& error, bool json);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_COMMAND_ANSWER_H_
