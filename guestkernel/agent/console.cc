#include "guestkernel/agent/console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

namespace cube::agent {
namespace {

// The kernel keeps 4095 bytes of a terminal's input. Wake-ups are single bytes and each one that is
// read costs a system call, so they are left lying and thrown away so many at a time.
constexpr uint32_t kReadEvery = 256;

Result<UniqueFd> OpenRaw(const std::string& path) {
  CUBE_ASSIGN(UniqueFd fd, OpenFile(path, O_RDWR | O_NOCTTY | O_NONBLOCK));
  termios settings = {};
  if (tcgetattr(fd.get(), &settings) < 0) return ErrnoError("%s is no terminal", path.c_str());
  cfmakeraw(&settings);
  settings.c_cflag |= CLOCAL;  // there is no modem whose hang-up could mean anything
  if (tcsetattr(fd.get(), TCSANOW, &settings) < 0) return ErrnoError("%s: tcsetattr", path.c_str());
  return fd;
}

}  // namespace

Result<Console> Console::Open(const std::string& path) {
  CUBE_ASSIGN(UniqueFd fd, OpenRaw(path));
  return Console(path, std::move(fd));
}

void Console::TakeWakeUp() {
  if (++unread_ < kReadEvery) return;
  unread_ = 0;
  char buffer[4096];
  while (read(fd_.get(), buffer, sizeof buffer) == sizeof buffer) {
  }
}

Status Console::Lend(uint16_t rows, uint16_t columns) {
  termios settings = {};
  if (tcgetattr(fd_.get(), &settings) < 0) return ErrnoError("%s: tcgetattr", path_.c_str());
  settings.c_iflag = BRKINT | ICRNL | IMAXBEL | IUTF8 | IXON;
  settings.c_oflag = OPOST | ONLCR;
  settings.c_lflag = ISIG | ICANON | IEXTEN | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE;
  settings.c_cc[VINTR] = 003;
  settings.c_cc[VQUIT] = 034;
  settings.c_cc[VERASE] = 0177;
  settings.c_cc[VKILL] = 025;
  settings.c_cc[VEOF] = 004;
  settings.c_cc[VSUSP] = 032;
  settings.c_cc[VSTART] = 021;
  settings.c_cc[VSTOP] = 023;
  settings.c_cc[VWERASE] = 027;
  settings.c_cc[VLNEXT] = 026;
  settings.c_cc[VREPRINT] = 022;
  // TCSAFLUSH drops the wake-ups that were not read.
  if (tcsetattr(fd_.get(), TCSAFLUSH, &settings) < 0) {
    return ErrnoError("%s: tcsetattr", path_.c_str());
  }
  if (rows != 0 && columns != 0) {
    winsize size = {.ws_row = rows, .ws_col = columns};
    ioctl(fd_.get(), TIOCSWINSZ, &size);
  }
  fd_.Reset();
  return OkStatus();
}

Status Console::Reclaim() {
  // A new descriptor: the end of a session leader hangs up its terminal, and with it the old ones.
  CUBE_ASSIGN(fd_, OpenRaw(path_));
  unread_ = 0;
  return OkStatus();
}

}  // namespace cube::agent
