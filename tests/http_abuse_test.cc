// Clients of the HTTP endpoint that do not keep to the rules: each is told so, and others do not
// notice.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "tests/node_daemon.h"

namespace cube::testing {
namespace {

namespace json = boost::json;

constexpr char kConfig[] =
    "[pool]\nsize = 1\n[api]\nheader_seconds = 1\nidle_seconds = 2\nmax_header_bytes = 4096\n"
    "max_body_bytes = 10000\nmax_connections = 1200\n";

class HttpAbuseTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    node_ = std::make_unique<NodeDaemon>(kConfig);
    node_->Start();
    // What the pool has open is of no matter here.
    node_->AwaitParked(1);
    std::string address = Text(node_->Ask("node.status"), "http");
    port_ = static_cast<uint16_t>(atoi(address.substr(address.rfind(':') + 1).c_str()));
  }
  static void TearDownTestSuite() { node_.reset(); }

  static UniqueFd Connect() {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  static void Send(const UniqueFd& fd, const std::string& bytes) {
    // It may have been closed by then.
    (void)!send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  // All that comes until the end.
  static std::string ReadAll(const UniqueFd& fd) {
    std::string all;
    char piece[4096];
    ssize_t n;
    while ((n = recv(fd.get(), piece, sizeof piece, 0)) > 0)
      all.append(piece, static_cast<size_t>(n));
    return all;
  }
  // The status of the first answer to those bytes; 0 if there is none.
  static int StatusOf(const std::string& bytes) {
    UniqueFd fd = Connect();
    Send(fd, bytes);
    shutdown(fd.get(), SHUT_WR);
    std::string answer = ReadAll(fd);
    return answer.starts_with("HTTP/1.1 ") ? atoi(answer.c_str() + 9) : 0;
  }
  static int Get() {
    return StatusOf("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  }
  static std::string Post(const std::string& target, const std::string& body) {
    return "POST " + target +
           " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\nConnection: close\r\n\r\n" + body;
  }
  static size_t Descriptors() {
    auto folder =
        std::filesystem::directory_iterator("/proc/" + std::to_string(node_->pid()) + "/fd");
    return static_cast<size_t>(std::distance(begin(folder), end(folder)));
  }
  // All connections of before are gone.
  static void AwaitDescriptors(size_t count) {
    while (Descriptors() > count) {
      EXPECT_EQ(Get(), 200);
    }
  }

  static std::unique_ptr<NodeDaemon> node_;
  static uint16_t port_;
};

std::unique_ptr<NodeDaemon> HttpAbuseTest::node_;
uint16_t HttpAbuseTest::port_;

TEST_F(HttpAbuseTest, FormsThatTwoParsersUnderstandInTwoWaysAreRefused) {
  const std::string kHost = "Host: localhost\r\n";
  const std::string kPost = "POST /sandboxes HTTP/1.1\r\n";
  const std::pair<const char*, std::string> kForms[] = {
      {"length and chunks",
       kPost + kHost + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {"chunks and length",
       kPost + kHost + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n"},
      {"two lengths", kPost + kHost + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"},
      {"the same length twice", kPost + kHost + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"},
      {"lengths in a list", kPost + kHost + "Content-Length: 2, 2\r\n\r\n{}"},
      {"a negative length", kPost + kHost + "Content-Length: -2\r\n\r\n{}"},
      {"a signed length", kPost + kHost + "Content-Length: +2\r\n\r\n{}"},
      {"a length of hexadecimal digits", kPost + kHost + "Content-Length: 0x2\r\n\r\n{}"},
      {"too great a length", kPost + kHost + "Content-Length: 99999999999999999999999\r\n\r\n{}"},
      {"another coding", kPost + kHost + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
      {"two codings",
       kPost + kHost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {"a coding that is none", kPost + kHost + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
      {"a coding with a tab", kPost + kHost + "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"},
      {"no coding at all", kPost + kHost + "Transfer-Encoding: identity\r\n\r\n{}"},
      {"no coding, and a length",
       kPost + kHost + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}"},
      {"chunks twice", kPost + kHost + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"},
      {"chunks with a parameter",
       kPost + kHost + "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"},
      {"chunks last but one",
       kPost + kHost + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
      {"a coding behind a space", kPost + kHost + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
      {"a coding on the next line",
       kPost + kHost + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"},
      {"a length behind a space", kPost + kHost + "Content-Length : 2\r\n\r\n{}"},
      {"a length with a space in it", kPost + kHost + "Content-Length: 1 2\r\n\r\n{}"},
      {"no length", kPost + kHost + "Content-Length:\r\n\r\n"},
      {"chunks in HTTP/1.0",
       "POST /sandboxes HTTP/1.0\r\n" + kHost + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {"a continued line", "GET / HTTP/1.1\r\n" + kHost + "X: a\r\n b\r\n\r\n"},
      {"a space before the colon", "GET / HTTP/1.1\r\nHost : localhost\r\n\r\n"},
      {"a line that ends in LF", "GET / HTTP/1.1\nHost: localhost\n\n"},
      {"one line that ends in LF", "GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n"},
      {"a CR alone", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n"},
      {"a zero byte", std::string("GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", 46)},
      {"no host", "GET / HTTP/1.1\r\n\r\n"},
      {"two hosts", "GET / HTTP/1.1\r\n" + kHost + kHost + "\r\n"},
      {"no colon", "GET / HTTP/1.1\r\n" + kHost + "X\r\n\r\n"},
      {"no name", "GET / HTTP/1.1\r\n" + kHost + ": x\r\n\r\n"},
      {"another version", "GET / HTTP/2.0\r\n" + kHost + "\r\n"},
      {"no version", "GET /\r\n" + kHost + "\r\n"},
      {"spaces in the target", "GET /a b HTTP/1.1\r\n" + kHost + "\r\n"},
      {"no method", "/ HTTP/1.1\r\n" + kHost + "\r\n"},
      {"chunks of a wrong size",
       kPost + kHost + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"},
      {"a chunk of a signed size",
       kPost + kHost + "Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n"},
      {"a chunk of a size with 0x",
       kPost + kHost + "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n"},
      {"a chunk of too great a size",
       kPost + kHost + "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n"},
      {"chunks whose lines end in LF",
       kPost + kHost + "Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n"},
      {"chunks without their end",
       kPost + kHost + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n"},
      {"a body that is cut short", kPost + kHost + "Content-Length: 10\r\n\r\n{}"},
      {"TLS", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15)},
  };
  for (const auto& [what, form] : kForms) EXPECT_EQ(StatusOf(form), 400) << what;
  EXPECT_EQ(Get(), 200);
}

TEST_F(HttpAbuseTest, TooMuchIsRefused) {
  EXPECT_EQ(
      StatusOf("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(5000, 'x') + "\r\n\r\n"),
      431);
  EXPECT_EQ(StatusOf("GET /" + std::string(100'000, 'x')), 431);
  std::string many = "GET / HTTP/1.1\r\nHost: localhost\r\n";
  for (int i = 0; i < 1000; ++i) many += "X: y\r\n";
  EXPECT_EQ(StatusOf(many + "\r\n"), 431);
  EXPECT_EQ(StatusOf(Post("/sandboxes", std::string(10'001, ' '))), 413);
  EXPECT_EQ(
      StatusOf("POST /sandboxes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
               "ffffff\r\n" +
               std::string(20'000, ' ')),
      413);
  EXPECT_EQ(StatusOf("POST /sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
                     "Expect: 100-continue\r\n\r\n"),
            413);
  // Nested too deep.
  EXPECT_EQ(StatusOf(Post("/sandboxes", "{\"a\":" + std::string(5000, '['))), 400);
}

TEST_F(HttpAbuseTest, WhatIsNotJsonOrNotUtf8IsRefused) {
  for (const char* body :
       {"", "x", "[]", "\"a\"", "1", "{", "{\"templateID\":\"\xff\"}", "{\"templateID\":}",
        "{\"templateID\":\"a\"}x", "{\"templateID\":\"\\ud800\"}", "\xef\xbb\xbf{}"}) {
    EXPECT_EQ(StatusOf(Post("/sandboxes", body)), 400) << body;
  }
  for (const char* target : {"/%", "/sandboxes/%zz", "/sandboxes/%00", "/sandboxes?a=%"}) {
    EXPECT_EQ(StatusOf(std::string("GET ") + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400)
        << target;
  }
  EXPECT_EQ(StatusOf("GET /sandboxes/..%2f..%2fetc HTTP/1.1\r\nHost: localhost\r\n\r\n"), 404);
  EXPECT_EQ(StatusOf("GET http://localhost/sandboxes HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(StatusOf("BREW /sandboxes HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405);
}

TEST_F(HttpAbuseTest, AnswersAreUtf8WhateverWasAsked) {
  for (const char* target : {"/no/such\xff", "/sandboxes/\xc0\xaf", "/sandboxes/%ff%fe", "/x?a=%ff",
                             "/v2/sandboxes?state=%ff", "/\xed\xa0\x80"}) {
    UniqueFd fd = Connect();
    Send(fd, std::string("GET ") + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    shutdown(fd.get(), SHUT_WR);
    std::string answer = ReadAll(fd);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 40")) << target << ": " << answer;
    size_t body = answer.find("\r\n\r\n");
    ASSERT_NE(body, std::string::npos);
    boost::system::error_code failed;
    auto value = json::parse(answer.substr(body + 4), failed);
    EXPECT_FALSE(failed) << target << ": " << answer;
  }
}

TEST_F(HttpAbuseTest, RequestsInOnePieceAreAnsweredInTheirOrder) {
  constexpr int kCount = 300;
  UniqueFd fd = Connect();
  std::string all;
  for (int i = 0; i < kCount; ++i) {
    all += Format("GET /no/%d HTTP/1.1\r\nHost: localhost\r\n\r\n", i);
    // With a body, which is none of the requests behind it.
    all +=
        "POST /no/such HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\nGET / "
        "HTTP/1.1\r\n\r\n";
  }
  all += "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  Send(fd, all);
  std::string answers = ReadAll(fd);
  size_t place = 0, count = 0;
  for (int i = 0; i < kCount; ++i) {
    place = answers.find(Format("there is no /no/%d\"", i), place);
    ASSERT_NE(place, std::string::npos) << i;
  }
  EXPECT_NE(answers.find("HTTP/1.1 200", place), std::string::npos);
  for (place = 0; (place = answers.find("HTTP/1.1 ", place)) != std::string::npos; ++place) ++count;
  EXPECT_EQ(count, 2 * kCount + 1);
}

TEST_F(HttpAbuseTest, WhoIsSlowIsCutOffAndOthersAreServedMeanwhile) {
  size_t before = Descriptors();
  std::vector<UniqueFd> slow;
  for (int i = 0; i < 20; ++i) {
    slow.push_back(Connect());
    // Nothing at all, a part of a header, a part of a body.
    if (i % 3 == 1) Send(slow.back(), "GET / HTTP/1.1\r\nHo");
    if (i % 3 == 2) Send(slow.back(), "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  EXPECT_EQ(Get(), 200);
  // More of a header does not buy more time.
  for (UniqueFd& each : slow) {
    pollfd ended = {each.get(), POLLIN, 0};
    while (poll(&ended, 1, 100) == 0) Send(each, "x");
    (void)ReadAll(each);
  }
  slow.clear();
  AwaitDescriptors(before);
}

TEST_F(HttpAbuseTest, AThousandConnectionsAndOneTooMany) {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  size_t before = Descriptors();
  std::vector<UniqueFd> all;
  for (int i = 0; i < 1000; ++i) all.push_back(Connect());
  const std::string kRequest =
      "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  for (UniqueFd& each : all) Send(each, kRequest);
  for (UniqueFd& each : all) EXPECT_EQ(ReadAll(each).substr(0, 12), "HTTP/1.1 200");
  all.clear();
  AwaitDescriptors(before);
}

TEST_F(HttpAbuseTest, ClientsThatVanishLeaveNothingBehind) {
  size_t before = Descriptors();
  for (int i = 0; i < 200; ++i) {
    UniqueFd fd = Connect();
    switch (i % 4) {
      case 0:
        Send(fd, "GET /heal");
        break;
      case 1:
        Send(fd, "POST /sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
        break;
      case 2:
        Send(fd, "GET /v2/sandboxes HTTP/1.1\r\nHost: localhost\r\n\r\n");
        break;
      default:
        Send(fd, "GET / HTTP/1.1\r\nHost: 80-nobody.x.test\r\n\r\n");
    }
    // The end comes as a reset.
    linger now = {1, 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  AwaitDescriptors(before);
  // One that does not wait for its sandbox has one nevertheless, until its time is over.
  UniqueFd fd = Connect();
  Send(fd, Post("/sandboxes", "{\"templateID\":\"t\",\"timeout\":1}"));
  fd.Reset();
  while (node_->Ask("node.status").at("creates").as_int64() == 0) {
  }
  while (node_->Ask("node.status").at("sandboxes").as_int64() != 0) {
  }
}

TEST_F(HttpAbuseTest, NoSandboxOfOthersByTricksWithNames) {
  const std::string kGet = "GET / HTTP/1.1\r\nHost: ";
  EXPECT_EQ(StatusOf(kGet + "80-../../x.test\r\n\r\n"), 400);
  EXPECT_EQ(StatusOf(kGet + "99999-abc.test\r\n\r\n"), 400);
  EXPECT_EQ(StatusOf(kGet + "80-nobody.test\r\nConnection: close\r\n\r\n"), 502);
  EXPECT_EQ(StatusOf(kGet + "localhost\r\nE2b-Sandbox-Id: a\r\n\r\n"), 400);
}

}  // namespace
}  // namespace cube::testing
