#ifndef CUBE_TESTS_PTY_PROCESS_H_
#define CUBE_TESTS_PTY_PROCESS_H_

#include <sys/types.h>
#include <termios.h>

#include <string>
#include <vector>

namespace cube::testing {

// A process on a pseudo terminal of its own, and the person who sits in front of it.
class PtyProcess {
 public:
  PtyProcess(const std::vector<std::string>& arguments, uint16_t rows, uint16_t columns);
  ~PtyProcess();
  PtyProcess(const PtyProcess&) = delete;
  PtyProcess& operator=(const PtyProcess&) = delete;

  void Type(const std::string& keys);
  // Waits until `text` is on the screen, below what earlier calls have found; false once the
  // process has gone without saying it.
  bool See(const std::string& text);
  // Waits for the end of the process: its exit status, or 128+n for signal n.
  int Finish();
  // All that has been on the screen.
  const std::string& screen() const { return screen_; }
  // The terminal's settings, which outlive the process.
  termios Settings() const;

 private:
  // One more piece of the screen; false at the end of the process.
  bool Read();

  pid_t pid_ = -1;
  int process_ = -1;   // pidfd
  int keyboard_ = -1;  // the master
  int terminal_ = -1;  // the slave, kept open so that the settings do not go with the process
  std::string screen_;
  size_t seen_ = 0;
};

}  // namespace cube::testing

#endif  // CUBE_TESTS_PTY_PROCESS_H_
