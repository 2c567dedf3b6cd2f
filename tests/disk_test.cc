// Disks as a user meets them: file systems on /dev/vda, checked by the guest and by the host's
// e2fsck. $CUBE_DISK_MIB says how much is written: everyday little, all of it by hand.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

class DiskVmTest : public ::testing::Test {
 protected:
  DiskVmTest() : folder_(fs::path(Env("TEST_TMPDIR")) / "disks") {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~DiskVmTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return folder_ / name; }
  static int Mebibytes() { return std::stoi(Env("CUBE_DISK_MIB")); }

  std::string MakeExt4(const std::string& name, int mebibytes) {
    std::ofstream(Path(name)).close();
    fs::resize_file(Path(name), static_cast<uintmax_t>(mebibytes) << 20);
    Finished made =
        RunProcess({"/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", Path(name)});
    EXPECT_EQ(made.status, 0) << made.err;
    return Path(name);
  }
  std::string MakeRandom(const std::string& name, int mebibytes) {
    std::ofstream file(Path(name), std::ios::binary);
    std::mt19937_64 random(7);
    std::vector<uint64_t> block((1 << 20) / sizeof(uint64_t));
    for (int i = 0; i < mebibytes; ++i) {
      for (uint64_t& word : block) word = random();
      file.write(reinterpret_cast<const char*>(block.data()), 1 << 20);
    }
    return Path(name);
  }
  static std::string Checksum(const std::string& path) {
    Finished sum = RunProcess({"/usr/bin/sha256sum", path});
    EXPECT_EQ(sum.status, 0) << sum.err;
    return sum.out.substr(0, 64);
  }
  // e2fsck of what base and overlay hold. It does not go back to the journal by itself (-n): what a
  // guest that was killed left there is played back first, as its next mount would.
  void ExpectClean(const std::string& base, const std::string& overlay) {
    Finished flat = RunProcess({Env("CUBE_VMM"), "disk", "flatten", base, overlay, Path("flat")});
    ASSERT_EQ(flat.status, 0) << flat.err;
    Finished journal = RunProcess({"/sbin/e2fsck", "-fp", "-E", "journal_only", Path("flat")});
    EXPECT_EQ(journal.status & ~1, 0) << journal.out << journal.err;
    Finished check = RunProcess({"/sbin/e2fsck", "-fn", Path("flat")});
    EXPECT_EQ(check.status, 0) << check.out << check.err;
  }

  fs::path folder_;
};

TEST_F(DiskVmTest, AFileSystemOnAnOverlayKeepsWhatIsWritten) {
  int size = Mebibytes();
  std::string base = MakeExt4("base", size + size / 4 + 16);
  std::string data = MakeRandom("data", size);
  std::string before = Checksum(base);
  std::string script =
      "set -e; mkdir /mnt/d; mount -t ext4 /dev/vda /mnt/d; dd if=/dev/vdb of=/mnt/d/f bs=1M "
      "2>/dev/null; umount /mnt/d; mount -t ext4 /dev/vda /mnt/d; sha256sum < /mnt/d/f; "
      "cat /sys/block/vdb/ro; umount /mnt/d";
  Finished run = RunProcess(Vmm(
      {"--memory", "128", "--disk", base + ":overlay=" + Path("overlay"), "--disk", data + ":ro"},
      {"/bin/sh", "-c", "mkdir -p /mnt; " + script}));
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, Checksum(data) + "  -\n1\n");
  EXPECT_EQ(Checksum(base), before);
  ExpectClean(base, Path("overlay"));

  // Another VM finds it there, with the other engine.
  run = RunProcess(Vmm({"--disk", base + ":engine=thread:overlay=" + Path("overlay")},
                       {"/bin/sh", "-c",
                        "mkdir -p /mnt/d; mount -t ext4 -o ro /dev/vda /mnt/d && "
                        "sha256sum < /mnt/d/f"}));
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, Checksum(data) + "  -\n");
}

TEST_F(DiskVmTest, ARawDiskTakesWhatIsWrittenToIt) {
  int size = Mebibytes();
  std::string data = MakeRandom("data", size);
  std::ofstream(Path("raw")).close();
  fs::resize_file(Path("raw"), static_cast<uintmax_t>(size) << 20);
  Finished run = RunProcess(Vmm({"--disk", Path("raw"), "--disk", data + ":ro"},
                                {"/bin/sh", "-c",
                                 "dd if=/dev/vdb of=/dev/vda bs=1M 2>/dev/null && sync && "
                                 "echo 3 > /proc/sys/vm/drop_caches; sha256sum < /dev/vda"}));
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, Checksum(data) + "  -\n");
  EXPECT_EQ(Checksum(Path("raw")), Checksum(data));
}

// The VMM is killed while the guest makes, writes, syncs and removes files, at another moment each
// time, and the next VM goes on with the same overlay.
TEST_F(DiskVmTest, AVmmThatIsKilledLeavesAnOverlayThatChecksClean) {
  std::string base = MakeExt4("base", 64);
  std::string before = Checksum(base);
  std::string script =
      "mkdir -p /mnt/d; mount -t ext4 /dev/vda /mnt/d || exit 9; cd /mnt/d; n=0; "
      "while :; do mkdir -p d$n; cp /bin/busybox d$n/b; dd if=/dev/zero of=d$n/z bs=4k count=50 "
      "2>/dev/null; mv d$n/z z$n; [ $((n % 3)) = 0 ] && sync; rm -rf d$((n - 5)) z$((n - 9)); "
      "n=$((n + 1)); echo $n; done";
  for (size_t lines : {2, 9, 17, 30}) {
    Process process(
        Vmm({"--disk", base + ":overlay=" + Path("overlay")}, {"/bin/sh", "-c", script}));
    std::string out;
    while (static_cast<size_t>(std::count(out.begin(), out.end(), '\n')) < lines) {
      std::string more = process.WaitForOutput();
      if (more.empty()) break;
      out += more;
    }
    kill(process.pid(), SIGKILL);
    Finished run = process.Finish();
    ASSERT_EQ(run.status, 128 + SIGKILL) << run.err;
    ExpectClean(base, Path("overlay"));
  }
  EXPECT_EQ(Checksum(base), before);
}

TEST_F(DiskVmTest, DisksThatCannotBeAreOneLine) {
  std::string base = MakeExt4("base", 8);
  std::ofstream(Path("text")) << "this is not an overlay, however long the text goes on here";
  const std::pair<std::string, std::string> cases[] = {
      {"/no/such/file", "/no/such/file"},
      {base + ":rw", "'rw'"},
      {base + ":overlay=" + Path("text"), "not an overlay"},
      {base + ":ro:overlay=" + Path("o"), "read-only"},
      {"/dev/null", "/dev/null"},
  };
  for (const auto& [disk, part] : cases) {
    Finished run = RunProcess(Vmm({"--disk", disk}, {"/bin/true"}));
    EXPECT_EQ(run.status, 125);
    EXPECT_EQ(run.err.rfind("cube-vmm: --disk " + disk, 0), 0u) << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    EXPECT_NE(run.err.find(part), std::string::npos) << run.err;
  }
}

}  // namespace
}  // namespace cube::testing
