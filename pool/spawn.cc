#include "pool/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <cstring>

extern char** environ;

namespace cube::pool {
namespace {

struct Actions {
  Actions() { posix_spawn_file_actions_init(&actions); }
  ~Actions() { posix_spawn_file_actions_destroy(&actions); }
  posix_spawn_file_actions_t actions;
};

struct Attributes {
  Attributes() { posix_spawnattr_init(&attributes); }
  ~Attributes() { posix_spawnattr_destroy(&attributes); }
  posix_spawnattr_t attributes;
};

bool IsReplaced(const char* variable, const std::vector<std::string>& environment) {
  for (const std::string& one : environment) {
    size_t name = one.find('=') + 1;
    if (strncmp(variable, one.c_str(), name) == 0) return true;
  }
  return false;
}

}  // namespace

Result<Spawned> SpawnProcess(const std::vector<std::string>& arguments,
                             const std::vector<std::string>& environment) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
  UniqueFd reader(ends[0]), writer(ends[1]);
  if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
  UniqueFd input(ends[0]), input_end(ends[1]);
  Actions files;
  posix_spawn_file_actions_adddup2(&files.actions, input.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files.actions, writer.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files.actions, writer.get(), STDERR_FILENO);
  // Asio's sockets are not closed by an exec of themselves.
  posix_spawn_file_actions_addclosefrom_np(&files.actions, STDERR_FILENO + 1);
  Attributes how;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&how.attributes, &none);
  posix_spawnattr_setsigdefault(&how.attributes, &all);
  posix_spawnattr_setflags(&how.attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> words, variables;
  for (const std::string& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  for (char** one = environ; *one != nullptr; ++one) {
    if (!IsReplaced(*one, environment)) variables.push_back(*one);
  }
  for (const std::string& one : environment) variables.push_back(const_cast<char*>(one.c_str()));
  variables.push_back(nullptr);
  pid_t pid = 0;
  int failed =
      posix_spawnp(&pid, words[0], &files.actions, &how.attributes, words.data(), variables.data());
  if (failed != 0) return Errorf("cannot start %s: %s", words[0], strerror(failed));
  Spawned spawned;
  CUBE_ASSIGN(spawned.process, ProcessHandle::Open(pid));
  spawned.output = std::move(reader);
  spawned.input = std::move(input_end);
  return spawned;
}

}  // namespace cube::pool
