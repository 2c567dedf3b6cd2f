// `cube-jail`: puts a program into a jail, or shows a jailed process one more folder. The node
// starts it as root; it ends once the program runs.
//
//   cube-jail [--root D] [--show PATH]... [--box D=PLACE] [--cgroup D]... [--users
//   FIRST:COUNT:INSIDE]
//     [--zygote] [--clone-place PLACE] [--reaper-cgroup D]... [--filters OWN:MACHINE:VCPU] [--env
//     NAME=VALUE]... -- PROGRAM ARGUMENT... prints {"jailed":PID}; the program is begun once a byte
//     is on stdin
//   cube-jail show PID PATH...
//     prints {"shown":true}
#include <grp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "pool/jail/enter.h"
#include "pool/jail/place.h"

namespace cube::pool {
namespace {

int Fail(const Error& error) {
  dprintf(STDOUT_FILENO, "cube-jail: %s\n", error.message().c_str());
  return 1;
}

// "A:B:C", or "A=B".
std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

Status SetOption(const std::string& name, const std::string& value, JailPlan* plan) {
  if (name == "--root")
    plan->root = value;
  else if (name == "--show")
    plan->visible.push_back(value);
  else if (name == "--cgroup")
    plan->cgroups.push_back(value);
  else if (name == "--clone-place")
    plan->clone_place = value;
  else if (name == "--reaper-cgroup")
    plan->reaper_cgroups.push_back(value);
  else if (name == "--env")
    plan->environment.push_back(value);
  else if (name == "--box") {
    std::vector<std::string> parts = Split(value, '=');
    if (parts.size() != 2) return Errorf("\"%s\" is not FOLDER=PLACE", value.c_str());
    plan->box = parts[0];
    plan->box_place = parts[1];
  } else if (name == "--users") {
    std::vector<std::string> parts = Split(value, ':');
    if (parts.size() != 3) return Errorf("\"%s\" is not FIRST:COUNT:INSIDE", value.c_str());
    plan->first_uid = static_cast<uint32_t>(strtoul(parts[0].c_str(), nullptr, 10));
    plan->uids = static_cast<uint32_t>(strtoul(parts[1].c_str(), nullptr, 10));
    plan->first_inside = static_cast<uint32_t>(strtoul(parts[2].c_str(), nullptr, 10));
    if (plan->first_uid == 0) return Errorf("root is nobody's to be in a jail");
  } else if (name == "--filters") {
    std::vector<std::string> parts = Split(value, ':');
    if (parts.size() != 3) return Errorf("\"%s\" is not OWN:MACHINE:VCPU", value.c_str());
    plan->program_filter = parts[0];
    plan->machine_filter = parts[1];
    plan->vcpu_filter = parts[2];
  } else {
    return Errorf("unknown option %s", name.c_str());
  }
  return OkStatus();
}

Result<JailPlan> ReadPlan(int argc, char** argv) {
  JailPlan plan;
  int at = 1;
  for (; at < argc && strcmp(argv[at], "--") != 0; ++at) {
    if (strcmp(argv[at], "--zygote") == 0) {
      plan.is_zygote = true;
    } else if (at + 1 < argc) {
      CUBE_TRY(SetOption(argv[at], argv[at + 1], &plan));
      ++at;
    }
  }
  for (++at; at < argc; ++at) plan.arguments.emplace_back(argv[at]);
  if (plan.arguments.empty() || plan.root.empty() || plan.box.empty() || plan.first_uid == 0) {
    return Errorf("--root, --box, --users and a program are missing");
  }
  plan.program = plan.arguments[0];
  return plan;
}

// The first process of a zygote's PID namespace, whose child the zygote is: clones outlive that,
// but not this one, which does nothing but wait for those that end. Root of the host until now, it
// keeps nothing that it could be used for.
[[noreturn]] void Reap(const JailPlan& plan) {
  prctl(PR_SET_NAME, "cube-reaper");
  (void)setsid();
  close_range(0, ~0u, 0);
  const uid_t uid = plan.first_uid;
  if (chdir("/") < 0 || setgroups(0, nullptr) < 0 || setresgid(uid, uid, uid) < 0 ||
      setresuid(uid, uid, uid) < 0) {
    _exit(1);
  }
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  while (wait(nullptr) > 0 || errno == EINTR) {
  }
  _exit(0);
}

Status StartJailed(const JailPlan& plan) {
  CUBE_TRY(JoinCgroups(plan.reaper_cgroups));
  if (unshare(CLONE_NEWPID) < 0) return ErrnoError("making a PID namespace");
  CUBE_ASSIGN(JailGate gate, JailGate::Make());
  pid_t child = fork();
  if (child == 0 && plan.is_zygote) {
    child = fork();
    if (child > 0) Reap(plan);
    if (child < 0) _exit(Fail(ErrnoError("fork")));
  }
  if (child < 0) return ErrnoError("fork");
  if (child == 0) _exit(Fail(EnterJail(plan, std::move(gate))));
  auto jailed = MapUsers(plan, &gate);
  // It has said why it could not go on.
  if (!jailed.ok()) _exit(1);
  dprintf(STDOUT_FILENO, "{\"jailed\":%d}\n", *jailed);
  char word;
  ssize_t n;
  while ((n = read(STDIN_FILENO, &word, 1)) < 0 && errno == EINTR) {
  }
  return n == 1 ? OpenGate(gate) : Status(Errorf("nobody waits for it any more"));
}

int Main(int argc, char** argv) {
  if (argc > 3 && strcmp(argv[1], "show") == 0) {
    for (int i = 3; i < argc; ++i) {
      // Each in a process of its own: in the jail, the next path is another one.
      pid_t child = fork();
      if (child < 0) return Fail(ErrnoError("fork"));
      if (child == 0) {
        Status shown = ShowTo(atoi(argv[2]), argv[i]);
        _exit(shown.ok() ? 0 : Fail(shown.error()));
      }
      int status = 0;
      if (waitpid(child, &status, 0) < 0 || status != 0) return 1;
    }
    puts("{\"shown\":true}");
    return 0;
  }
  auto plan = ReadPlan(argc, argv);
  Status done = plan.ok() ? StartJailed(*plan) : Status(plan.error());
  return done.ok() ? 0 : Fail(done.error());
}

}  // namespace
}  // namespace cube::pool

int main(int argc, char** argv) { return cube::pool::Main(argc, argv); }
