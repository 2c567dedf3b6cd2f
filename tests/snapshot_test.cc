// Snapshots of running sandboxes: taken, restored, gone back to.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include "snapshot/snapshot.h"
#include "snapshot/snapshot_writer.h"
#include "tests/await.h"
#include "tests/counter_sandbox.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

class SnapshotTest : public SandboxTest {};

TEST_F(SnapshotTest, DiffAndFullGoOnFromWhereTheyWereTaken) {
  Process counter(Counter());
  std::string first = NextAnswer(&counter);
  EXPECT_EQ(first.substr(0, 2), "1 ");
  std::string sum = first.substr(2);
  EXPECT_EQ(NextAnswer(&counter), "2 " + sum);
  Finished diff = Ask({"snapshot", Socket(), work_ + "/diff", "--diff"});
  ASSERT_EQ(diff.status, 0) << diff.err;
  Finished full = Ask({"snapshot", Socket(), work_ + "/full"});
  ASSERT_EQ(full.status, 0) << full.err;
  // A diff holds what was written since the template, the data among it, and not the whole memory.
  EXPECT_GT(fs::file_size(work_ + "/diff/memory"), 3000000u);
  EXPECT_LT(fs::file_size(work_ + "/diff/memory"), 30000000u);
  // The sandbox goes on, and what it does is not in the snapshots.
  EXPECT_EQ(NextAnswer(&counter), "3 " + sum);
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  counter.Finish();
  for (const char* name : {"/diff", "/full"}) {
    SCOPED_TRACE(name);
    Process restored(Command({"restore", work_ + name}));
    EXPECT_EQ(NextAnswer(&restored), "3 " + sum);
    EXPECT_EQ(NextAnswer(&restored), "4 " + sum);
    Finished end = restored.Finish();  // the end of its input
    EXPECT_EQ(end.status, 0) << end.err;
  }
}

TEST_F(SnapshotTest, ChainsOfDiffs) {
  std::string from = template_;
  std::string sum;
  for (int depth = 0; depth < 4; ++depth) {
    SCOPED_TRACE(depth);
    Process counter(depth == 0 ? Counter() : Command({"restore", from}));
    std::string answer = NextAnswer(&counter);
    EXPECT_EQ(answer.substr(0, 2), std::to_string(depth + 1) + " ");
    if (depth == 0) sum = answer.substr(2);
    EXPECT_EQ(answer.substr(2), sum);
    from = work_ + "/" + std::to_string(depth);
    Finished taken = Ask({"snapshot", Socket(), from, "--diff"});
    ASSERT_EQ(taken.status, 0) << taken.err;
    EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
    counter.Finish();
  }
}

TEST_F(SnapshotTest, RollbackPutsTheGuestBackInPlace) {
  Process counter(Counter());
  std::string sum = NextAnswer(&counter).substr(2);
  ASSERT_EQ(Ask({"snapshot", Socket(), work_ + "/one", "--diff"}).status, 0);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(NextAnswer(&counter), "2 " + sum);
    EXPECT_EQ(NextAnswer(&counter), "3 " + sum);
    Finished back = Ask({"rollback", Socket(), work_ + "/one"});
    ASSERT_EQ(back.status, 0) << back.out << back.err;
  }
  EXPECT_EQ(NextAnswer(&counter), "2 " + sum);
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  counter.Finish();
}

TEST_F(SnapshotTest, ABootedMachineHasABaseOnceItHasASnapshot) {
  Process counter(Vmm({}, {"/bin/sh", "-c", kCounter}));
  std::string sum = NextAnswer(&counter).substr(2);
  EXPECT_NE(Ask({"snapshot", Socket(), work_ + "/early", "--diff"}).err.find("was booted"),
            std::string::npos);
  EXPECT_NE(Ask({"rollback", Socket(), template_}).err.find("was booted"), std::string::npos);
  Finished full = Ask({"snapshot", Socket(), work_ + "/a"});
  ASSERT_EQ(full.status, 0) << full.err;
  EXPECT_EQ(NextAnswer(&counter), "2 " + sum);
  Finished diff = Ask({"snapshot", Socket(), work_ + "/b", "--diff"});
  ASSERT_EQ(diff.status, 0) << diff.err;
  EXPECT_LT(fs::file_size(work_ + "/b/memory"), 3000000u);
  EXPECT_EQ(NextAnswer(&counter), "3 " + sum);
  for (const auto& [to, answer] :
       std::vector<std::pair<std::string, std::string>>{{"/a", "2 "}, {"/b", "3 "}, {"/a", "2 "}}) {
    Finished back = Ask({"rollback", Socket(), work_ + to});
    ASSERT_EQ(back.status, 0) << back.out << back.err;
    EXPECT_EQ(NextAnswer(&counter), answer + sum) << to;
  }
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  counter.Finish();
  for (const auto& [from, answer] :
       std::vector<std::pair<std::string, std::string>>{{"/a", "2 "}, {"/b", "3 "}}) {
    Process restored(Command({"restore", work_ + from}));
    EXPECT_EQ(NextAnswer(&restored), answer + sum) << from;
    EXPECT_EQ(restored.Finish().status, 0);
  }
}

// KiB of huge pages that the process of the sandbox with that control socket has.
long HugeKib(const std::string& info) {
  size_t pid = info.find("\"pid\":");
  if (pid == std::string::npos) return -1;
  std::ifstream in("/proc/" + std::to_string(atoi(info.c_str() + pid + 6)) + "/smaps_rollup");
  std::string word;
  while (in >> word) {
    if (word != "AnonHugePages:") continue;
    long kib = 0;
    in >> kib;
    return kib;
  }
  return -1;
}

// Memory that was filled some time ago has become huge pages, which are frozen, gone back to,
// written to and forked as any.
TEST_F(SnapshotTest, MemoryInHugePages) {
  const std::string script =
      "head -c 24000000 /dev/urandom > /tmp/data; i=0; "
      "while read line; do i=$((i+1)); echo $i $(md5sum < /tmp/data); "
      "if [ \"$line\" ]; then echo $line | dd of=/tmp/data bs=1 seek=12000000 conv=notrunc "
      "2>/dev/null; fi; done";
  Process sandbox(Command({"clone", template_, "--", "/bin/sh", "-c", script}));
  std::string sum = NextAnswer(&sandbox).substr(2);
  // The process looks whether its guest is idle; nothing tells of it.
  while (HugeKib(Ask({"info", Socket(), "--json"}).out) < (8 << 10)) usleep(50000);
  EXPECT_EQ(NextAnswer(&sandbox), "2 " + sum);
  ASSERT_EQ(Ask({"snapshot", Socket(), work_ + "/one", "--diff"}).status, 0);
  // It changes what is in a huge page; what was frozen, and what goes back to it, does not.
  sandbox.Send("changed\n");
  EXPECT_EQ(sandbox.ReadLine() + "\n", "3 " + sum);
  std::string changed = NextAnswer(&sandbox);
  EXPECT_EQ(changed.substr(0, 2), "4 ");
  EXPECT_NE(changed.substr(2), sum);
  ASSERT_EQ(Ask({"snapshot", Socket(), work_ + "/two", "--diff"}).status, 0);
  ASSERT_EQ(Ask({"rollback", Socket(), work_ + "/one"}).status, 0);
  EXPECT_EQ(NextAnswer(&sandbox), "3 " + sum);
  ASSERT_EQ(Ask({"rollback", Socket(), work_ + "/two"}).status, 0);
  EXPECT_EQ(NextAnswer(&sandbox), "5 " + changed.substr(2));
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  sandbox.Finish();
  Process restored(Command({"restore", work_ + "/one"}));
  EXPECT_EQ(NextAnswer(&restored), "3 " + sum);
  EXPECT_EQ(restored.Finish().status, 0);
}

TEST_F(SnapshotTest, PauseStopsTheGuest) {
  Process counter(Counter());
  NextAnswer(&counter);
  EXPECT_EQ(Ask({"pause", Socket()}).status, 0);
  EXPECT_NE(Ask({"info", Socket(), "--json"}).out.find("\"state\":\"paused\""), std::string::npos);
  // Also what is paused can be frozen.
  ASSERT_EQ(Ask({"snapshot", Socket(), work_ + "/paused", "--diff"}).status, 0);
  counter.Send("\n");
  EXPECT_EQ(Ask({"resume", Socket()}).status, 0);
  EXPECT_EQ(counter.ReadLine().substr(0, 2), "2 ");
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  counter.Finish();
}

TEST_F(SnapshotTest, SeveralVcpus) {
  ASSERT_EQ(RunProcess(CloneVmm({"--cpus", "2"}, {"/bin/true"})).status, 0);
  Process busy(CloneVmm(
      {"--cpus", "2"},
      {"/bin/sh", "-c",
       "(while true; do md5sum /bin/busybox > /tmp/x; mv /tmp/x /tmp/a; done) & "
       "(while true; do md5sum /bin/busybox > /tmp/b; done) & "
       "while read line; do while [ ! -s /tmp/a ]; do sleep 0.1; done; cat /tmp/a; done"}));
  std::string sum = NextAnswer(&busy);
  for (int i = 0; i < 5; ++i) {
    Finished taken = Ask({"snapshot", Socket(), work_ + "/" + std::to_string(i), "--diff"});
    ASSERT_EQ(taken.status, 0) << taken.err;
  }
  EXPECT_EQ(NextAnswer(&busy).substr(0, 8), sum.substr(0, 8));
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  busy.Finish();
  for (int i = 0; i < 5; ++i) {
    Process restored(Command({"restore", work_ + "/" + std::to_string(i)}));
    EXPECT_EQ(NextAnswer(&restored).substr(0, 8), sum.substr(0, 8));
    EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
    restored.Finish();
  }
}

TEST_F(SnapshotTest, RefusesInOneLine) {
  Process counter(Counter());
  NextAnswer(&counter);
  EXPECT_NE(Ask({"snapshot", Socket(), template_}).err.find("exists already"), std::string::npos);
  EXPECT_NE(Ask({"snapshot", Socket(), "/no/such/folder/x"}).err.find("/no/such/folder"),
            std::string::npos);
  EXPECT_NE(Ask({"rollback", Socket(), "/no/such"}).err.find("/no/such/manifest.json"),
            std::string::npos);
  EXPECT_NE(Ask({"info", "nobody"}).err.find("cannot reach"), std::string::npos);
  // None of which has harmed it.
  EXPECT_EQ(NextAnswer(&counter).substr(0, 2), "2 ");
  ASSERT_EQ(Ask({"snapshot", Socket(), work_ + "/one", "--diff"}).status, 0);
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  counter.Finish();

  auto reason = [&](const std::string& file, const std::string& from, const std::string& to) {
    std::string path = work_ + "/bad";
    fs::remove_all(path);
    fs::copy(work_ + "/one", path);
    fs::remove(path + "/memory.verified");
    std::ifstream in(path + "/" + file, std::ios::binary);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    size_t at = from.empty() ? text.size() / 2 : text.find(from);
    EXPECT_NE(at, std::string::npos);
    if (from.empty()) {
      text[at] = static_cast<char>(text[at] ^ 1);
    } else {
      text.replace(at, from.size(), to);
    }
    std::ofstream(path + "/" + file, std::ios::binary | std::ios::trunc) << text;
    Finished run = RunProcess(Command({"restore", path}));
    EXPECT_EQ(run.status, 125);
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    return run.err;
  };
  EXPECT_NE(reason("memory", "", "").find("/memory does not match its checksum"),
            std::string::npos);
  EXPECT_NE(reason("state", "", "").find("does not match its checksum"), std::string::npos);
  EXPECT_NE(reason("manifest.json", "\"version\":1", "\"version\":9").find("format version 9"),
            std::string::npos);
  // The parent is gone, or is another snapshot, or the snapshot itself.
  auto restore_error = [&] { return RunProcess(Command({"restore", work_ + "/one"})).err; };
  fs::rename(template_, template_ + ".away");
  EXPECT_NE(restore_error().find("the parent of"), std::string::npos) << restore_error();
  fs::create_directory_symlink(work_ + "/one", template_);
  EXPECT_NE(restore_error().find("in a circle"), std::string::npos);
  fs::remove(template_);
  fs::rename(template_ + ".away", template_);
  EXPECT_EQ(restore_error().find("circle"), std::string::npos);
}

// A clone of a machine that ran when it was frozen is another one, and what runs in it goes on.
TEST_F(SnapshotTest, ClonesOfARunningMachine) {
  Process waiting(Command({"clone", template_}));
  waiting.ReadLine();
  ASSERT_EQ(Ask({"snapshot", Socket(), work_ + "/waiting", "--diff"}).status, 0);
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  waiting.Finish();
  // Its agent takes a command, or waits for requests.
  Finished run = Ask({"clone", work_ + "/waiting", "--timeout", "60", "--", "/bin/hostname"});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out.substr(0, 5), "cube-");
  Process next(Command({"clone", work_ + "/waiting", "--timeout", "60"}));
  std::string id = next.ReadLine();
  EXPECT_EQ(Socket(), home_ + "/run/" + id + ".sock");
  EXPECT_EQ(Ask({"stop", id}).status, 0);
  EXPECT_EQ(next.Finish().status, 0);

  Process busy(Command({"clone", template_, "--", "/bin/sh", "-c",
                        "i=0; while sleep 0.1; do i=$((i+1)); echo $i $(hostname); done"}));
  busy.ReadLine();
  ASSERT_EQ(Ask({"snapshot", Socket(), work_ + "/busy", "--diff"}).status, 0);
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  busy.Finish();
  Process clone(Command({"clone", work_ + "/busy", "--timeout", "60"}));
  id = clone.ReadLine();
  // It goes on counting, and soon has another name.
  std::string said = clone.ReadLine();
  EXPECT_GT(atoi(said.c_str()), 1) << said;
  const std::string name = " cube-" + id.substr(0, 8);
  while (!said.ends_with(name) && !said.ends_with(Process::kEnded)) said = clone.ReadLine();
  EXPECT_TRUE(said.ends_with(name)) << said;
  EXPECT_EQ(Ask({"stop", id}).status, 0);
  EXPECT_EQ(clone.Finish().status, 0);
  Finished refused = Ask({"clone", work_ + "/busy", "--timeout", "60", "--", "/bin/true"});
  EXPECT_EQ(refused.status, 126);
  EXPECT_EQ(refused.err, "cube-vmm: a program has been started already\n");
}

// What is on its way to the agent is half in this process: a clone would wait for the rest of it.
TEST_F(SnapshotTest, NotWhileACommandIsOnItsWay) {
  std::vector<std::string> words = {"clone", template_};
  for (int i = 0; i < 5; ++i) {
    words.push_back("-e");
    words.push_back("V" + std::to_string(i) + "=" + std::string(100'000, 'x'));
  }
  for (const char* word : {"--", "/bin/sh", "-c", "echo up; read line; echo ${#V4}"}) {
    words.push_back(word);
  }
  Process clone(Command(words));
  AwaitChange(home_ + "/run", [this] { return !Socket().empty(); });
  Finished early = Ask({"snapshot", Socket(), work_ + "/early", "--diff"});
  if (early.status == 0) {
    // It was quicker than that.
    Process restored(Command({"restore", work_ + "/early", "--timeout", "30"}));
    restored.Send("\n");
    std::string said = restored.ReadLine();
    EXPECT_EQ(said == "up" ? restored.ReadLine() : said, "100000");
  } else {
    EXPECT_EQ(early.err,
              "cube-vmm: a command is being started in this sandbox: it cannot be frozen just "
              "now\n");
  }
  EXPECT_EQ(clone.ReadLine(), "up");
  EXPECT_EQ(Ask({"snapshot", Socket(), work_ + "/later", "--diff"}).status, 0);
  EXPECT_EQ(clone.Finish("\n").out, "100000\n");
  Process restored(Command({"restore", work_ + "/later", "--timeout", "60"}));
  restored.Send("\n");
  EXPECT_EQ(restored.ReadLine(), "100000");
}

// A snapshot that is whole, but of another host: each reason is one line.
TEST_F(SnapshotTest, OfAnotherHostIsRefused) {
  auto base = snapshot::Snapshot::Open(template_).value();
  auto cpuid = [](vmm::MachineState* state, uint32_t leaf) -> kvm_cpuid_entry2& {
    for (kvm_cpuid_entry2& entry : state->vcpus[0].cpuid) {
      if (entry.function == leaf && entry.index == 0) return entry;
    }
    abort();
  };
  struct Case {
    const char* what;
    std::function<void(vmm::MachineState*, snapshot::Manifest*)> change;
    std::string reason;
  };
  const Case cases[] = {
      {"a feature of the processor", [&](auto* state, auto*) { cpuid(state, 7).ecx = ~0u; },
       "this host's processor lacks features that were in use: CPUID 7.0.ECX bits "},
      {"another feature", [&](auto* state, auto*) { cpuid(state, 1).ecx = ~0u; },
       "this host's processor lacks features that were in use: CPUID 1.ECX bits "},
      {"a faster TSC", [](auto* state, auto*) { state->vcpus[0].tsc_khz *= 2; },
       "vCPU 0: saved with a TSC of "},
      {"larger registers",
       [](auto* state, auto*) { state->vcpus[0].xcrs.xcrs[0].value |= uint64_t{1} << 62; },
       "vCPU 0: KVM_SET_XCRS"},
      {"registers that are none", [](auto* state, auto*) { state->vcpus[0].sregs.cr4 = ~0ull; },
       "vCPU 0: "},
      {"another kind of ring 0",
       [](auto*, snapshot::Manifest* about) {
         about->ring0 = about->ring0 == "native" ? "engine" : "native";
       },
       " was taken with ring 0 "},
      {"other devices",
       [](auto* state, auto*) { state->devices[0].resize(state->devices[0].size() / 2); },
       "'s state"},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.what);
    const std::string path = work_ + "/other";
    fs::remove_all(path);
    vmm::MachineState state = base.state();
    snapshot::Manifest about = base.manifest();
    one.change(&state, &about);
    auto writer = snapshot::SnapshotWriter::Create(path, about).value();
    ASSERT_TRUE(writer.WriteBase(state, base.MapMemory().value(), base.DataRuns().value()).ok());
    ASSERT_TRUE(writer.Publish(false).ok());
    for (const char* command : {"restore", "clone"}) {
      Finished run = Ask({command, path, "--timeout", "60"});
      EXPECT_EQ(run.status, 125);
      EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
      EXPECT_NE(run.err.find(one.reason), std::string::npos) << run.err;
    }
  }
}

// The processors of a snapshot that is whole are looked at when its memory is in place already.
TEST_F(SnapshotTest, ARollbackThatFailsHalfWayLeavesABrokenSandbox) {
  auto base = snapshot::Snapshot::Open(template_).value();
  vmm::MachineState other = base.state();
  other.vcpus[0].cpuid[0].ebx ^= 1;
  auto writer = snapshot::SnapshotWriter::Create(work_ + "/other", base.manifest()).value();
  ASSERT_TRUE(writer.WriteBase(other, base.MapMemory().value(), base.DataRuns().value()).ok());
  ASSERT_TRUE(writer.Publish(false).ok());
  Process counter(Counter());
  NextAnswer(&counter);
  const std::string reason = "the sandbox is broken, and can only be stopped: vCPU 0 has another ";
  Finished back = Ask({"rollback", Socket(), work_ + "/other"});
  EXPECT_EQ(back.status, 1);
  EXPECT_NE(back.err.find(reason), std::string::npos) << back.err;
  std::string info = Ask({"info", Socket(), "--json"}).out;
  EXPECT_NE(info.find("\"state\":\"broken\",\"reason\":\"vCPU 0 has another "), std::string::npos)
      << info;
  for (const char* op : {"pause", "resume", "fork"}) {
    Finished refused = Ask({op, Socket()});
    EXPECT_EQ(refused.status, 1) << op;
    EXPECT_NE(refused.err.find(reason), std::string::npos) << refused.err;
  }
  EXPECT_EQ(Ask({"stop", Socket()}).status, 0);
  counter.Finish();
}

}  // namespace
}  // namespace cube::testing
