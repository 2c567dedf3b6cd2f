#ifndef CUBE_TEMPLATES_PROGRESS_H_
#define CUBE_TEMPLATES_PROGRESS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::templates {

// What a build does, for who waits for it and for its log. People read it on stderr; with JSON it
// is an object a line, on stdout:
//   {"event":"step","number":N,"of":N,"text":...}
//   {"event":"output","text":...}
//   {"event":"done","number":N,"cached":BOOL,"ms":N}
class Progress {
 public:
  // `log` is made anew.
  static Result<Progress> Create(const std::string& log, bool json);

  void Begin(size_t number, size_t of, const std::string& text);
  // In pieces, of which each may be a part of a line.
  void Output(std::string_view text);
  void End(bool cached);
  // For the log only.
  void Note(const std::string& line);

  const std::string& log() const { return path_; }

 private:
  Progress(UniqueFd file, std::string path, bool json)
      : file_(std::move(file)), path_(std::move(path)), json_(json) {}

  void Log(std::string_view text);
  void EmitOutput(std::string_view text);

  UniqueFd file_;
  std::string path_;
  bool json_;
  size_t number_ = 0, of_ = 0;
  uint64_t begun_ = 0;
  std::string cut_;       // the begin of a character, not yet sent
  bool in_line_ = false;  // the last output did not end its line
};

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_PROGRESS_H_
