// Shares as a user meets them: directories of the host's in a real guest.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

// Bytes that are no pattern, the same in every run.
std::string Noise(size_t size) {
  std::string noise(size, '\0');
  uint64_t state = 88172645463325252;
  for (char& c : noise) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    c = static_cast<char>(state);
  }
  return noise;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class FsVmTest : public ::testing::Test {
 protected:
  FsVmTest() : share_(Env("TEST_TMPDIR") + "/share") {
    std::filesystem::remove_all(share_);
    std::filesystem::create_directories(share_);
    // What a user would share is the user's.
    EXPECT_TRUE(geteuid() != 0 || chown(share_.c_str(), 1234, 1234) == 0);
  }
  ~FsVmTest() override { std::filesystem::remove_all(share_); }

  void Write(const std::string& name, std::string_view content) {
    std::ofstream(share_ + "/" + name, std::ios::binary) << content;
  }
  Finished Shell(const std::string& script, const std::string& options = "") {
    return RunProcess(
        Vmm({"--share", share_ + ":work" + options}, {"/bin/sh", "-c", "cd /mnt/work; " + script}));
  }

  std::string share_;
};

TEST_F(FsVmTest, TreesAreWrittenAndReadByBoth) {
  Write("from-host", "host\n");
  Finished run = Shell(
      "set -e; cat from-host; mkdir -p a/b/c; echo guest >a/b/c/file; echo more >>a/b/c/file\n"
      "mv a/b/c/file a/moved; ln -s ../moved a/b/pointer; cat a/b/pointer; ln a/moved hard\n"
      "stat -c '%h %F' hard; readlink a/b/pointer; rmdir a/b/c; find . | sort\n"
      "echo 1234567890 >cut; truncate -s 4 cut; cat cut; echo; chmod 640 cut; touch -d @86400 cut\n"
      "stat -c '%a %Y' cut; mv hard from-host; cat from-host; rm -r a; ls -a");
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out,
            "host\nguest\nmore\n2 regular file\n../moved\n"
            ".\n./a\n./a/b\n./a/b/pointer\n./a/moved\n./from-host\n./hard\n"
            "1234\n640 86400\nguest\nmore\n.\n..\ncut\nfrom-host\n");
  EXPECT_EQ(ReadFile(share_ + "/from-host"), "guest\nmore\n");
  EXPECT_EQ(ReadFile(share_ + "/cut"), "1234");
  struct stat stat;
  ASSERT_EQ(lstat((share_ + "/cut").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_mode & 07777, 0640u);
  EXPECT_EQ(stat.st_mtime, 86400);
  EXPECT_EQ(stat.st_uid, geteuid() == 0 ? 1234u : geteuid());
}

// The guest's ordinary user, whose number is not that of the host's.
TEST_F(FsVmTest, FilesAreTheGuestUsers) {
  Write("file", "");
  Finished run = Shell(
      "ls -ln | tail -n 1 | cut -c1-10,11-30; stat -c '%u:%g' .\n"
      "su -s /bin/sh user -c 'echo mine >mine; mkdir dir; stat -c %u:%g:%s mine; chmod 600 mine;"
      " chown 0 mine' || echo refused\n"
      "touch roots; stat -c %u roots");
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_NE(run.out.find("1000:1000\n1000:1000:5\nrefused\n1000\n"), std::string::npos)
      << run.out << run.err;
}

TEST_F(FsVmTest, WhatTheGuestSeesOfTheFileSystemIsTheHosts) {
  Finished run = Shell("df -k /mnt/work | tail -n 1; mount | grep /mnt/work");
  EXPECT_EQ(run.status, 0) << run.err;
  std::istringstream words(run.out);
  std::string source;
  uint64_t kib = 0;
  words >> source >> kib;
  EXPECT_EQ(source, "work");
  struct statvfs host;
  ASSERT_EQ(statvfs(share_.c_str(), &host), 0);
  EXPECT_EQ(kib, host.f_blocks * host.f_frsize / 1024);
  EXPECT_NE(run.out.find("work on /mnt/work type virtiofs (rw,nosuid,nodev"), std::string::npos)
      << run.out;
}

TEST_F(FsVmTest, ExtendedAttributesOfTheHost) {
  Write("file", "x");
  ASSERT_EQ(setxattr((share_ + "/file").c_str(), "user.colour", "red", 3, 0), 0);
  // busybox lists and sets none; copying a file with cp leaves those of the source alone.
  Finished run = Shell("cp -p file copy && mv file moved && cat copy");
  EXPECT_EQ(run.out, "x") << run.err;
  char value[8];
  EXPECT_EQ(getxattr((share_ + "/moved").c_str(), "user.colour", value, sizeof value), 3);
}

TEST_F(FsVmTest, AReadOnlyShareRefuses) {
  Write("file", "content");
  Finished run = Shell(
      "cat file; (echo x >file) || (echo x >new) || mkdir dir || rm file || mv file x || "
      "chmod 600 file || touch file || echo all refused",
      ":ro");
  EXPECT_EQ(run.out, "contentall refused\n") << run.err;
  // Nor when the guest's root mounts it as it likes.
  run = Shell(
      "cd /; umount /mnt/work; mount -t virtiofs work /mnt/work; cd /mnt/work; "
      "(echo x >file) || (echo x >new) || rm file || echo refused",
      ":ro");
  EXPECT_EQ(run.out, "refused\n") << run.err;
  EXPECT_EQ(ReadFile(share_ + "/file"), "content");
}

TEST_F(FsVmTest, LinksLeadIntoTheGuestsOwnFiles) {
  std::filesystem::create_symlink("/etc/hostname", share_ + "/name");
  std::filesystem::create_symlink("../../../../../../etc/hostname", share_ + "/up");
  Finished run = Shell("cat name up; ls .. | tr '\\n' ' '");
  EXPECT_EQ(run.out, "cube\ncube\nwork ") << run.err;
}

TEST_F(FsVmTest, SeveralSharesAndAnOldSessionsEnd) {
  std::string other = Env("TEST_TMPDIR") + "/other";
  std::filesystem::create_directories(other);
  Write("file", "one");
  std::ofstream(other + "/file") << "two";
  Finished run =
      RunProcess(Vmm({"--share", share_ + ":first", "--share", other + ":second:ro"},
                     {"/bin/sh", "-c",
                      "cat /mnt/first/file /mnt/second/file; umount /mnt/first; ls /mnt/first; "
                      "mount -t virtiofs first /mnt/first; cat /mnt/first/file"}));
  EXPECT_EQ(run.out, "onetwoone") << run.err;
}

TEST_F(FsVmTest, DataComesBackByChecksum) {
  const size_t mib = strtoul(Env("CUBE_FS_MIB").c_str(), nullptr, 10);
  std::string data = Noise(mib << 20);
  Write("in", data);
  // Read back from the host, not from what the guest has just written.
  Finished run = Shell(
      "dd if=in of=out bs=256k 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches; "
      "sha256sum in out | cut -d' ' -f1 | uniq | wc -l");
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, "1\n");
  EXPECT_TRUE(ReadFile(share_ + "/out") == data);
}

TEST_F(FsVmTest, BadSharesAreOneLineAndStatus125) {
  for (const std::string& bad : {std::string("/no/such:work"), share_, share_ + ":a/b",
                                 share_ + ":work:rw", share_ + ":work:uid=x"}) {
    Finished run = RunProcess(Vmm({"--share", bad}, {"/bin/true"}));
    EXPECT_EQ(run.status, 125);
    EXPECT_EQ(run.err.rfind("cube-vmm: --share", 0), 0u) << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  }
}

}  // namespace
}  // namespace cube::testing
