#include "guestkernel/agent/machine.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "base/unique_fd.h"
#include "guestkernel/agent/log.h"

namespace cube::agent {

void OpenStandardFds() {
  // The kernel opens them for init, if the root file system has a /dev/console.
  if (fcntl(STDERR_FILENO, F_GETFD) >= 0) return;
  int fd = open("/dev/console", O_RDWR | O_NOCTTY);
  if (fd < 0) fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd < STDERR_FILENO) fd = dup(fd);
}

Status SetHostName(const std::string& name) {
  if (sethostname(name.data(), name.size()) < 0) return ErrnoError("sethostname");
  return OkStatus();
}

Status BringUpLoopback() {
  UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return ErrnoError("cannot open a socket");
  ifreq request = {};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  if (ioctl(socket.get(), SIOCSIFFLAGS, &request) < 0) return ErrnoError("cannot bring up lo");
  return OkStatus();
}

void RaiseFileLimit() {
  // The agent's clients are files of its own. What it starts begins with less (launch.cc).
  rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
  setrlimit(RLIMIT_NOFILE, &limit);
}

void ReportSmallFreeAreas() {
  // 2^5 pages. Not there without a balloon, and then there is nobody to report to.
  int fd = open("/sys/module/page_reporting/parameters/page_reporting_order", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (write(fd, "5", 1) != 1) Log("cannot set the order of page reporting");
  close(fd);
}

void Die(const Error& error) {
  Log(error.message());
  // The command line makes this a triple fault (reboot=t), which ends the VM.
  reboot(RB_AUTOBOOT);
  _exit(1);  // not PID 1, or not allowed: an exit of PID 1 is a panic, which ends the VM as well
}

}  // namespace cube::agent
