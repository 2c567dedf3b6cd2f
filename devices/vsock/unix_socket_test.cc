#include "devices/vsock/unix_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace cube::devices::vsock {
namespace {

class UnixSocket : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(mkdtemp(folder_.data()), nullptr); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path() const { return folder_ + "/socket"; }

  std::string folder_ = "/tmp/unix-socket-XXXXXX";
};

TEST_F(UnixSocket, TheFileGoesWithTheListener) {
  {
    auto listener = UnixListener::Bind(path());
    ASSERT_TRUE(listener.ok()) << listener.error().message();
    EXPECT_TRUE(ConnectUnix(path()).valid());
  }
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_FALSE(ConnectUnix(path()).valid());
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(UnixSocket, AStaleFileIsReplaced) {
  {
    auto dead = UnixListener::Bind(path());
    ASSERT_TRUE(dead.ok());
    // As a process that was killed leaves it: the file without the socket.
    std::filesystem::rename(path(), path() + ".kept");
  }
  std::filesystem::rename(path() + ".kept", path());
  EXPECT_FALSE(ConnectUnix(path()).valid());
  EXPECT_EQ(errno, ECONNREFUSED);
  auto listener = UnixListener::Bind(path());
  ASSERT_TRUE(listener.ok()) << listener.error().message();
  EXPECT_TRUE(ConnectUnix(path()).valid());
}

TEST_F(UnixSocket, OneInUseIsRefusedAndStays) {
  auto first = UnixListener::Bind(path());
  ASSERT_TRUE(first.ok());
  auto second = UnixListener::Bind(path());
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().message(), path() + " is in use by another process");
  EXPECT_TRUE(ConnectUnix(path()).valid());
}

TEST_F(UnixSocket, AnotherFileIsRefusedAndStays) {
  std::ofstream(path()) << "mine";
  auto listener = UnixListener::Bind(path());
  ASSERT_FALSE(listener.ok());
  EXPECT_EQ(listener.error().message(), path() + " exists and is not a socket");
  EXPECT_EQ(std::filesystem::file_size(path()), 4u);
}

TEST_F(UnixSocket, AFilePutInItsPlaceIsLeftAlone) {
  {
    auto listener = UnixListener::Bind(path());
    ASSERT_TRUE(listener.ok());
    std::filesystem::remove(path());
    std::ofstream(path()) << "another's";
  }
  EXPECT_TRUE(std::filesystem::exists(path()));
}

TEST_F(UnixSocket, PathsHaveALimit) {
  auto listener = UnixListener::Bind(std::string(200, 'a'));
  ASSERT_FALSE(listener.ok());
  EXPECT_EQ(listener.error().message(), "socket path of 200 bytes, 1 to 107 are possible");
  EXPECT_FALSE(ConnectUnix(std::string(200, 'a')).valid());
}

TEST_F(UnixSocket, AListenerIsAdopted) {
  auto bound = UnixListener::Bind(path());
  ASSERT_TRUE(bound.ok());
  {
    auto adopted = UnixListener::Adopt(UniqueFd(dup(bound->fd())));
    ASSERT_TRUE(adopted.ok()) << adopted.error().message();
    EXPECT_TRUE(ConnectUnix(path()).valid());
  }
  EXPECT_TRUE(std::filesystem::exists(path()));
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  UniqueFd other(pair[1]);
  EXPECT_FALSE(UnixListener::Adopt(UniqueFd(pair[0])).ok());
}

}  // namespace
}  // namespace cube::devices::vsock
