#ifndef CUBE_GUESTKERNEL_AGENT_LAUNCH_H_
#define CUBE_GUESTKERNEL_AGENT_LAUNCH_H_

#include <sys/resource.h>
#include <sys/types.h>

#include <string>
#include <vector>

namespace cube::agent {

// As whom a program runs.
struct Credentials {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

// A program about to be run, and everything its process needs, made by its parent: between vfork(2)
// and execve(2) the two share their memory, so that the child may do nothing but system calls.
class Launch {
 public:
  // The first argument names the program; without a slash it is looked for in the PATH among
  // `variables` (NAME=VALUE). All three outlive the launch.
  Launch(const std::vector<std::string>& arguments, const std::vector<std::string>& variables,
         const std::string& directory);

  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  // Starts it as the leader of a session of its own, with an empty signal mask and `fds` as its
  // first descriptors. The child has run execve(2) when this returns, or has failed: then failed()
  // says so, and whoever reaps children reaps it too. -1 and errno if there could be no process.
  pid_t Spawn();

  // For a child that has made its own preparations: runs the program in its place.
  [[noreturn]] void RunProgram();
  // Ends such a child because of `errno`. Its parent learns of it by memory or by `report`.
  [[noreturn]] void Fail(const char* doing);
  // Takes from `report`'s other end what a child has failed at, if it has; waits until it has run
  // the program otherwise.
  void ReadReport(int fd);

  // What the child could not do ("run", to be followed by a name), or null; and its errno.
  const char* failed() const { return failed_; }
  int error() const { return error_; }

  int fds[3] = {0, 1, 2};
  bool terminal = false;                     // fds[0] becomes the controlling terminal
  const Credentials* credentials = nullptr;  // the parent's own if there are none
  int report = -1;  // where a child that shares no memory with its parent writes its failure

 private:
  struct Report {
    int error;
    const char* failed;
  };

  std::vector<std::string> programs_;  // to be tried in this order
  std::vector<char*> program_pointers_;
  std::vector<char*> arguments_;
  std::vector<char*> variables_;
  const char* directory_;
  rlimit files_;
  // Set by the child. Volatile, because the compiler does not know that what a function stores
  // before it exits for good can be seen by anyone.
  volatile int error_ = 0;
  const char* volatile failed_ = nullptr;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_LAUNCH_H_
