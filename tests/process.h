#ifndef CUBE_TESTS_PROCESS_H_
#define CUBE_TESTS_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace cube::testing {

struct Finished {
  int status = -1;  // exit status, or 128+n for signal n
  std::string out;
  std::string err;
};

// A process started by a test, with pipes for its standard descriptors.
class Process {
 public:
  explicit Process(const std::vector<std::string>& arguments);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Feeds `input`, collects the output, waits for the end.
  Finished Finish(const std::string& input = "");
  // Writes `input`, which must be less than a pipe holds, to its stdin.
  void Send(const std::string& input);
  // Closes the reading end of its stdout after `bytes` bytes.
  Finished ReadThenLeave(size_t bytes);
  // The next line of its stdout, without its end; kEnded after what it said last.
  std::string ReadLine();
  static constexpr char kEnded[] = "(it has ended)";
  // Waits until its stdout or stderr has said something, and returns that of stdout.
  std::string WaitForOutput();
  // Waits until its stderr has said `text`, or has ended; what was read is not in Finish()'s.
  void WaitForError(const std::string& text);
  pid_t pid() const { return pid_; }

 private:
  int Reap();

  pid_t pid_ = -1;
  int in_ = -1, out_ = -1, err_ = -1;
  std::string unread_;  // of its stdout, after the lines that were asked for
};

Finished RunProcess(const std::vector<std::string>& arguments, const std::string& input = "");

}  // namespace cube::testing

#endif  // CUBE_TESTS_PROCESS_H_
