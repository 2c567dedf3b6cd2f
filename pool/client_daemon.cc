#include "pool/client_daemon.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/unique_fd.h"

extern char** environ;

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

std::string DaemonProgram() {
  std::error_code failed;
  fs::path beside = fs::read_symlink("/proc/self/exe", failed).parent_path() / "cubed";
  return !failed && access(beside.c_str(), X_OK) == 0 ? beside.string() : "cubed";
}

// What was written to the log behind `from`: its last line.
std::string LastWords(const std::string& path, off_t from) {
  auto log = OpenFile(path, O_RDONLY);
  char text[4096];
  ssize_t n = log.ok() ? pread(log->get(), text, sizeof text, from) : 0;
  std::string words(text, n > 0 ? static_cast<size_t>(n) : 0);
  while (words.ends_with('\n')) words.pop_back();
  size_t line = words.rfind('\n');
  return line == std::string::npos ? words : words.substr(line + 1);
}

}  // namespace

Status StartDaemon(const std::vector<std::string>& arguments, const std::string& log) {
  std::error_code failed;
  fs::create_directories(fs::path(log).parent_path(), failed);
  CUBE_ASSIGN(UniqueFd file, OpenFile(log, O_WRONLY | O_CREAT | O_APPEND, 0600));
  off_t before = lseek(file.get(), 0, SEEK_END);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
  UniqueFd reader(ends[0]), writer(ends[1]);
  std::string program = DaemonProgram();
  std::vector<char*> words = {program.data()};
  for (const std::string& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, writer.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, file.get(), STDERR_FILENO);
  posix_spawnattr_t how;
  posix_spawnattr_init(&how);
  posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSID);
  pid_t pid = 0;
  int error = posix_spawnp(&pid, words[0], &files, &how, words.data(), environ);
  posix_spawnattr_destroy(&how);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return Errorf("cannot start %s: %s", program.c_str(), strerror(error));
  writer.Reset();
  char word[16];
  ssize_t n;
  while ((n = read(reader.get(), word, sizeof word)) < 0 && errno == EINTR) {
  }
  if (n > 0) return OkStatus();
  waitpid(pid, nullptr, 0);
  std::string last = LastWords(log, before);
  return Errorf("%s has not come up%s%s", program.c_str(), last.empty() ? "" : ": ", last.c_str());
}

}  // namespace cube::pool
