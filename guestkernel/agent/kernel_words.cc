#include "guestkernel/agent/kernel_words.h"

#include <algorithm>

namespace cube::agent {

std::vector<std::string_view> KernelWords(std::string_view command_line, std::string_view prefix) {
  constexpr std::string_view kBlank = " \t\n";
  std::vector<std::string_view> words;
  while (true) {
    size_t start = command_line.find_first_not_of(kBlank);
    if (start == std::string_view::npos) return words;
    size_t end = std::min(command_line.find_first_of(kBlank, start), command_line.size());
    std::string_view word = command_line.substr(start, end - start);
    command_line.remove_prefix(end);
    if (word.starts_with(prefix)) words.push_back(word.substr(prefix.size()));
  }
}

bool CutSuffix(std::string_view* word, std::string_view suffix) {
  if (!word->ends_with(suffix)) return false;
  word->remove_suffix(suffix.size());
  return true;
}

}  // namespace cube::agent
