// stress [-s SEED] [-n ROUNDS] [-l] NAME...: run in a guest by stress_test. Each subtest checks all
// it does, and prints `NAME ok CHECKSUM`, the same for the same seed on every machine, or what
// differed first; then the exit status is 1. -l lists the names. It also runs on any Linux host.
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/guest/stress/stress.h"

namespace cube::testing {
namespace {

constexpr unsigned kHangSeconds = 100;

std::vector<Subtest> All() {
  std::vector<Subtest> all;
  for (auto some : {MemorySubtests(), ThreadSubtests(), ExceptionSubtests(), SignalSubtests(),
                    EventSubtests(), TerminalSubtests(), SharingSubtests()}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

// In a child with a group of its own, so that nothing of it is left, whatever happens.
bool RunOne(const Subtest& subtest, uint64_t seed, uint64_t rounds) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    CatchFaults();
    if (rounds == 0) rounds = subtest.rounds;
    Run run = {seed, rounds, Random(seed), 0xcbf29ce484222325};
    subtest.run(run);
    printf("%s ok %016llx\n", subtest.name, static_cast<unsigned long long>(run.sum));
    fflush(stdout);
    _exit(0);
  }
  setpgid(child, child);
  int status = 0;
  for (unsigned tenths = 0; waitpid(child, &status, WNOHANG) == 0; ++tenths) {
    if (tenths == kHangSeconds * 100) {
      printf("%s: hangs\n", subtest.name);
      status = -1;
      break;
    }
    usleep(10000);
  }
  kill(-child, SIGKILL);
  if (status != 0) {
    printf("%s: failed with seed %llu, wait status %#x\n", subtest.name,
           static_cast<unsigned long long>(seed), static_cast<unsigned>(status));
  }
  return status == 0;
}

int Main(int argc, char** argv) {
  uint64_t seed = 1, rounds = 0;
  bool ok = true;
  std::vector<Subtest> all = All();
  for (int option; (option = getopt(argc, argv, "s:n:l")) >= 0;) {
    switch (option) {
      case 's': seed = strtoull(optarg, nullptr, 0); break;
      case 'n': rounds = strtoull(optarg, nullptr, 0); break;
      case 'l':
        for (const Subtest& subtest : all) printf("%s\n", subtest.name);
        return 0;
      default: return 2;
    }
  }
  for (int i = optind; i < argc; ++i) {
    bool found = false;
    for (const Subtest& subtest : all) {
      if (strcmp(subtest.name, argv[i]) != 0 && strcmp(argv[i], "all") != 0) continue;
      found = true;
      ok = RunOne(subtest, seed, rounds) && ok;
    }
    if (!found) {
      printf("%s: no such subtest\n", argv[i]);
      ok = false;
    }
  }
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace cube::testing

int main(int argc, char** argv) { return cube::testing::Main(argc, argv); }
