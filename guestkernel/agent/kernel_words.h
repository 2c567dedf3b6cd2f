#ifndef CUBE_GUESTKERNEL_AGENT_KERNEL_WORDS_H_
#define CUBE_GUESTKERNEL_AGENT_KERNEL_WORDS_H_

#include <string_view>
#include <vector>

namespace cube::agent {

// What follows `prefix` in each word of a kernel command line that starts with it, in their order.
// They are views of `command_line`.
std::vector<std::string_view> KernelWords(std::string_view command_line, std::string_view prefix);

// Cuts `suffix` off `word`; false if it does not end so.
bool CutSuffix(std::string_view* word, std::string_view suffix);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_KERNEL_WORDS_H_
