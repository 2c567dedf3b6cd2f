#include "bench/claims/child.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <sstream>

#include "base/unique_fd.h"
#include "bench/claims/stopwatch.h"

extern char** environ;

namespace cube::bench {
namespace {

constexpr size_t kMaxOutput = 1 << 20;

struct FileActions {
  FileActions() { posix_spawn_file_actions_init(&actions); }
  ~FileActions() { posix_spawn_file_actions_destroy(&actions); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  posix_spawn_file_actions_t actions;
};

}  // namespace

Result<ChildRun> RunChild(const std::vector<std::string>& arguments,
                          const std::vector<std::string>& environment) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
  UniqueFd reader(ends[0]), writer(ends[1]);
  FileActions files;
  posix_spawn_file_actions_addopen(&files.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files.actions, writer.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files.actions, writer.get(), STDERR_FILENO);
  std::vector<char*> words, variables;
  for (const std::string& one : arguments) words.push_back(const_cast<char*>(one.c_str()));
  words.push_back(nullptr);
  // The first of two variables of a name is the one that counts.
  for (const std::string& one : environment) variables.push_back(const_cast<char*>(one.c_str()));
  for (char** one = environ; *one != nullptr; ++one) variables.push_back(*one);
  variables.push_back(nullptr);
  pid_t pid = 0;
  Stopwatch watch;
  int failed =
      posix_spawnp(&pid, words[0], &files.actions, nullptr, words.data(), variables.data());
  if (failed != 0) return Errorf("%s: %s", words[0], strerror(failed));
  writer.Reset();
  ChildRun run;
  char piece[16 * 1024];
  for (;;) {
    ssize_t size = read(reader.get(), piece, sizeof piece);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    // The rest is read, so that the program does not wait for ever.
    if (run.output.size() < kMaxOutput) run.output.append(piece, static_cast<size_t>(size));
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return ErrnoError("waiting for %s", arguments[0].c_str());
  }
  run.ms = watch.Ms();
  run.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return run;
}

Result<ChildRun> RunChildWell(const std::vector<std::string>& arguments,
                              const std::vector<std::string>& environment) {
  auto run = RunChild(arguments, environment);
  if (run.ok() && run->status != 0) {
    return Errorf("%s ended with %d: %.900s", arguments[0].c_str(), run->status,
                  run->output.c_str());
  }
  return run;
}

bool HasProgram(const std::string& name) {
  const char* path = getenv("PATH");
  std::istringstream folders(path == nullptr ? "/usr/bin:/bin" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

}  // namespace cube::bench
