#ifndef CUBE_VMM_CLI_OPTION_WORDS_H_
#define CUBE_VMM_CLI_OPTION_WORDS_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace cube::vmm {

// The parts of an option's value: one more than there are separators, any of them may be empty.
// They are views of `text`.
std::vector<std::string_view> SplitWords(std::string_view text, char separator);

// All of `text` as a decimal number of at most `limit`.
std::optional<uint64_t> WholeNumber(std::string_view text, uint64_t limit);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_OPTION_WORDS_H_
