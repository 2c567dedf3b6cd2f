#include "guestkernel/agent/tools/tools.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "guestkernel/agent/log.h"
#include "guestkernel/agent/tools/account.h"
#include "guestkernel/agent/tools/clean_disk.h"
#include "guestkernel/agent/tools/unpack.h"

namespace cube::agent {
namespace {

constexpr int kFailed = 125;
constexpr int kCannotRun = 126;
constexpr int kNotFound = 127;

int Fail(const Error& error) {
  Log(error.message());
  return kFailed;
}

// Becomes `program`, which ends with a null.
int Become(const char* user, char** program) {
  Result<Account> account = Account::Find(user);
  if (!account.ok()) return Fail(account.error());
  Status status = account->Become();
  if (!status.ok()) return Fail(status.error());
  const char* home = getenv("HOME");
  if (home == nullptr || home[0] == '\0') setenv("HOME", account->home.c_str(), 1);
  execvp(program[0], program);
  int status_of_shells = errno == ENOENT || errno == ENOTDIR ? kNotFound : kCannotRun;
  Log(ErrnoError("cannot run '%s'", program[0]).message());
  return status_of_shells;
}

// A status other than that of the program means that its disk is not to be used.
int Clean(int status) {
  Status cleaned = CleanDisk();
  return cleaned.ok() ? status : Fail(cleaned.error());
}

int RunStep(const char* user, char** program) {
  pid_t pid = fork();
  if (pid < 0) return Fail(ErrnoError("fork"));
  if (pid == 0) _exit(Become(user, program));
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) return 128 + WTERMSIG(status);
  return WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : Clean(0);
}

}  // namespace

int RunTool(int argc, char** argv) {
  std::string_view word = argv[1];
  if (word == "unpack" && argc == 2) {
    Status status = Unpack(STDIN_FILENO);
    return status.ok() ? Clean(0) : Fail(status.error());
  }
  if (argc >= 5 && std::string_view(argv[3]) == "--") {
    if (word == "as") return Become(argv[2], argv + 4);
    if (word == "step") return RunStep(argv[2], argv + 4);
  }
  return Fail(Errorf("usage: unpack | as USER -- PROGRAM... | step USER -- PROGRAM..."));
}

}  // namespace cube::agent
