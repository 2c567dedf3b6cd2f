// The server with handlers of this test's and clients that send what they should and what they
// should not.

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "guestkernel/agent/http/request_parser.h"
#include "guestkernel/agent/http/server.h"
#include "guestkernel/agent/http/simple_handlers.h"
#include "guestkernel/agent/http/test_client.h"
#include "guestkernel/agent/loop/loop_thread.h"

namespace cube::agent::http {
namespace {

// What the handlers of a test and the test itself see, in two threads.
struct Seen {
  std::atomic<int> handlers = 0;  // that live
  std::atomic<size_t> body = 0;
  std::atomic<size_t> written = 0;
  std::atomic<size_t> most_unsent = 0;
};

class Counted : public Handler {
 public:
  explicit Counted(Seen* seen) : seen_(seen) { ++seen_->handlers; }
  ~Counted() override { --seen_->handlers; }
  void OnBody(std::string_view bytes) override { seen_->body += bytes.size(); }
  void OnBodyEnd() override {}

 protected:
  Seen* seen_;
};

// Sends the body back as it comes, in chunks.
class Echo final : public Counted {
 public:
  Echo(Seen* seen, Response* response) : Counted(seen), response_(response) {
    response_->Start(200, {}, std::nullopt);
  }
  void OnBody(std::string_view bytes) override {
    Counted::OnBody(bytes);
    response_->Write(bytes);
  }
  void OnBodyEnd() override { response_->Finish(); }

 private:
  Response* response_;
};

// Never answers.
class Silent final : public Counted {
 public:
  using Counted::Counted;
};

// Takes no body until the client of another request says so.
class Paused final : public Counted {
 public:
  Paused(Seen* seen, Response* response, std::vector<Response*>* waiting)
      : Counted(seen), response_(response) {
    response_->PauseBody(true);
    waiting->push_back(response_);
  }
  void OnBodyEnd() override { response_->Send(200, {}, std::to_string(seen_->body)); }

 private:
  Response* response_;
};

// Writes without end, a piece whenever the one before has been sent.
class Endless final : public Counted {
 public:
  Endless(Seen* seen, Response* response) : Counted(seen), response_(response) {
    response_->Start(200, {}, std::nullopt);
    OnDrained();
  }
  void OnDrained() override {
    const std::string piece(65536, 'x');
    response_->Write(piece);
    seen_->written += piece.size();
    seen_->most_unsent = std::max(seen_->most_unsent.load(), response_->unsent());
  }

 private:
  Response* response_;
};

class HttpTest : public ::testing::Test {
 protected:
  HttpTest()
      : server_(thread_.loop.get(), &memory_, scratch_, "X-Fixed: yes\r\n",
                [this](const Request& request, Response* response) {
                  return Route(request, response);
                }) {
    EXPECT_TRUE(server_.Serve(listener_.Take()).ok());
    thread_.Start();
  }
  ~HttpTest() override { thread_.Join(); }

  TestClient Connect() { return TestClient(listener_.Connect()); }

  // Waits until what another thread does is done.
  template <typename Condition>
  void Wait(Condition condition) {
    TestClient client = Connect();
    for (int i = 0; i < 200000 && !condition(); ++i) {
      client.SendRequest("GET", "/target");
      client.ReadAnswer();
    }
    EXPECT_TRUE(condition());
  }

  std::unique_ptr<Handler> Route(const Request& request, Response* response) {
    if (request.path == "/echo") return std::make_unique<Echo>(&seen_, response);
    if (request.path == "/silent") return std::make_unique<Silent>(&seen_);
    if (request.path == "/endless") return std::make_unique<Endless>(&seen_, response);
    if (request.path == "/paused") return std::make_unique<Paused>(&seen_, response, &waiting_);
    if (request.path == "/resume") {
      for (Response* each : std::exchange(waiting_, {})) each->PauseBody(false);
      return Answer(response, 204, {}, "");
    }
    if (request.path == "/refuse") return Answer(response, 401, {}, "no");
    std::string text = request.method + " " + request.path;
    for (const auto& [name, value] : request.query) text += "|" + name + "=" + value;
    if (const std::string* field = request.Field("x-some")) text += "|" + *field;
    return Answer(response, 200, {{"Content-Type", "text/plain"}}, text);
  }

  LoopThread thread_;
  MemoryBudget memory_{8 << 20};
  LocalListener listener_;
  Seen seen_;
  std::vector<Response*> waiting_;  // of the loop's thread
  std::array<char, 65536> scratch_;
  Server server_;
};

TEST_F(HttpTest, TargetsQueriesAndFieldsAreTakenApart) {
  TestClient client = Connect();
  ASSERT_TRUE(client.SendRequest("GET", "/a%20b/c?x=1&y=a+b%2fc&&z", {{"X-SOME", " value "}}));
  TestClient::Answer answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "GET /a b/c|x=1|y=a b/c|z=|value");
  EXPECT_EQ(answer.fields["x-fixed"], "yes");
  EXPECT_EQ(answer.fields["content-type"], "text/plain");
}

TEST_F(HttpTest, OneConnectionServesManyRequestsEvenThoseSentAhead) {
  TestClient client = Connect();
  std::string all;
  for (int i = 0; i < 100; ++i) all += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
  ASSERT_TRUE(client.Send(all));
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(client.ReadAnswer().body, "GET /" + std::to_string(i));
  }
}

TEST_F(HttpTest, BodiesComeWithALengthOrInChunks) {
  TestClient client = Connect();
  std::string body(300000, 'b');
  ASSERT_TRUE(client.SendRequest("POST", "/echo", {}, &body));
  EXPECT_EQ(client.ReadAnswer().body, body);
  ASSERT_TRUE(
      client.Send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "5;extension=1\r\nhello\r\n1\r\n \r\n"));
  TestClient::Answer answer = client.ReadHead();
  EXPECT_EQ(answer.status, 200);
  // The first chunks are answered before the last has been sent.
  std::string echoed;
  while (echoed.size() < 6) echoed += client.ReadPiece().value();
  EXPECT_EQ(echoed, "hello ");
  ASSERT_TRUE(
      client.Send("5\r\nworld\r\n0\r\nTrailer: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_EQ(client.ReadPiece(), "world");
  EXPECT_EQ(client.ReadPiece(), std::nullopt);
  EXPECT_EQ(client.ReadAnswer().body, "GET /next");
}

TEST_F(HttpTest, ByteByByteIsAsGoodAsAtOnce) {
  TestClient client = Connect();
  const std::string text =
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
  for (char c : text) ASSERT_TRUE(client.Send({&c, 1}));
  EXPECT_EQ(client.ReadAnswer().body, "abc");
}

TEST_F(HttpTest, AClientThatExpectsLeaveToSendItsBodyGetsIt) {
  TestClient client = Connect();
  ASSERT_TRUE(
      client.Send("POST /paused HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                  "Content-Length: 3\r\n\r\n"));
  EXPECT_EQ(client.ReadHead().status, 100);
  ASSERT_TRUE(client.Send("abc"));
  TestClient other = Connect();
  other.SendRequest("GET", "/resume");
  EXPECT_EQ(other.ReadAnswer().status, 204);
  EXPECT_EQ(client.ReadAnswer().body, "3");
  // Or does not, if there is no use for it, and then cannot go on.
  ASSERT_TRUE(
      client.Send("POST /refuse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                  "Content-Length: 3\r\n\r\n"));
  EXPECT_EQ(client.ReadAnswer().status, 401);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(HttpTest, TheBodyOfARefusedRequestIsThrownAwayAndTheNextIsServed) {
  TestClient client = Connect();
  std::string body(1 << 20, 'x');
  ASSERT_TRUE(client.SendRequest("POST", "/refuse", {}, &body));
  EXPECT_EQ(client.ReadAnswer().status, 401);
  ASSERT_TRUE(client.SendRequest("GET", "/next"));
  EXPECT_EQ(client.ReadAnswer().body, "GET /next");
}

TEST_F(HttpTest, HeadHasNoBodyAndOldClientsGetNoChunks) {
  TestClient client = Connect();
  ASSERT_TRUE(client.Send("HEAD /x HTTP/1.1\r\nHost: x\r\n\r\nGET /y HTTP/1.1\r\nHost: x\r\n\r\n"));
  TestClient::Answer head = client.ReadHead();
  EXPECT_EQ(head.fields["content-length"], "7");
  EXPECT_EQ(client.ReadAnswer().body, "GET /y");
  TestClient old = Connect();
  ASSERT_TRUE(old.Send("POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nab"));
  TestClient::Answer answer = old.ReadAnswer();
  EXPECT_EQ(answer.fields["connection"], "close");
  EXPECT_EQ(answer.body, "ab");
}

TEST_F(HttpTest, WhatIsNotHttpIsRefusedAndClosed) {
  const std::string cases[] = {
      "\x16\x03\x01\x02",
      "GET\r\n\r\n",
      "GET / HTTP/2.0\r\n\r\n",
      "GET / HTTP/1.1\r\nNo colon\r\n\r\n",
      "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
      "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
      "POST /silent HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
      "POST /silent HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
  };
  for (const std::string& text : cases) {
    TestClient client = Connect();
    ASSERT_TRUE(client.Send(text + "\r\n\r\n"));
    EXPECT_EQ(client.ReadAnswer().status, 400) << text;
    EXPECT_TRUE(client.AtEnd()) << text;
  }
  Wait([this] { return seen_.handlers == 0; });
}

TEST_F(HttpTest, HeadsWithoutEndAreRefused) {
  TestClient one_field = Connect();
  one_field.Send("GET / HTTP/1.1\r\nX: " + std::string(70000, 'x'));
  EXPECT_EQ(one_field.ReadAnswer().status, 431);
  TestClient target = Connect();
  target.Send("GET /" + std::string(70000, 'x'));
  EXPECT_EQ(target.ReadAnswer().status, 431);
  TestClient fields = Connect();
  std::string text = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 300; ++i) text += "X: y\r\n";
  fields.Send(text + "\r\n");
  EXPECT_EQ(fields.ReadAnswer().status, 431);
  TestClient chunk = Connect();
  chunk.Send("POST /silent HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
             std::string(140000, 'x'));
  EXPECT_EQ(chunk.ReadAnswer().status, 431);
}

TEST_F(HttpTest, AClientThatLeavesTakesItsHandlerAlong) {
  TestClient client = Connect();
  ASSERT_TRUE(client.SendRequest("GET", "/silent"));
  Wait([this] { return seen_.handlers == 1; });
  client.Close();
  Wait([this] { return seen_.handlers == 0; });
  // Closing a half is leaving as well.
  TestClient half = Connect();
  ASSERT_TRUE(half.SendRequest("GET", "/silent"));
  Wait([this] { return seen_.handlers == 1; });
  half.CloseOurHalf();
  Wait([this] { return seen_.handlers == 0; });
  EXPECT_TRUE(half.AtEnd());
  // And so is stopping in the middle of a request.
  TestClient middle = Connect();
  ASSERT_TRUE(middle.Send("POST /silent HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc"));
  Wait([this] { return seen_.handlers == 1 && seen_.body == 3; });
  middle.CloseOurHalf();
  Wait([this] { return seen_.handlers == 0; });
}

TEST_F(HttpTest, AnAnswerReachesAClientThatHasClosedItsHalf) {
  TestClient client = Connect();
  ASSERT_TRUE(client.SendRequest("GET", "/last"));
  client.CloseOurHalf();
  EXPECT_EQ(client.ReadAnswer().body, "GET /last");
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(HttpTest, AWriterIsAskedForNoMoreThanItsReaderTakes) {
  TestClient client = Connect();
  ASSERT_TRUE(client.SendRequest("GET", "/endless"));
  EXPECT_EQ(client.ReadHead().status, 200);
  size_t read = 0;
  while (read < 8 << 20) read += client.ReadPiece().value().size();
  Wait([this] { return seen_.handlers == 1; });
  // The sockets' own buffers, and a piece in the server.
  EXPECT_LT(seen_.written, read + (4 << 20));
  EXPECT_LE(seen_.most_unsent, 2u * 65536 + 1000);
  client.Close();
  Wait([this] { return seen_.handlers == 0; });
}

TEST_F(HttpTest, ABodyThatNobodyTakesIsNotRead) {
  TestClient client = Connect();
  const std::string body(32 << 20, 'x');
  std::thread sender([&] { EXPECT_TRUE(client.SendRequest("POST", "/paused", {}, &body)); });
  Wait([this] { return seen_.handlers == 1; });
  EXPECT_LE(seen_.body, scratch_.size());
  TestClient other = Connect();
  other.SendRequest("GET", "/resume");
  EXPECT_EQ(other.ReadAnswer().status, 204);
  sender.join();
  EXPECT_EQ(client.ReadAnswer().body, std::to_string(body.size()));
}

TEST_F(HttpTest, HundredsOfIdleConnectionsAreServedWhenTheyAskForIt) {
  std::vector<TestClient> clients;
  for (int i = 0; i < 400; ++i)
    clients.push_back(Connect());  // two descriptors each, in one process
  for (TestClient& client : clients) ASSERT_TRUE(client.Send("GET /x HTTP/1.1\r\n"));
  for (TestClient& client : clients) ASSERT_TRUE(client.Send("\r\n"));
  for (TestClient& client : clients) EXPECT_EQ(client.ReadAnswer().body, "GET /x");
}

TEST(RequestParser, TrailersAddNothingToTheHead) {
  RequestParser parser;
  std::string_view input =
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Access-Token: t\r\n\r\n";
  std::string body;
  RequestParser::Body add = [&](std::string_view bytes) { body += bytes; };
  ASSERT_EQ(parser.Parse(&input, add), RequestParser::Step::kHead);
  ASSERT_EQ(parser.Parse(&input, add), RequestParser::Step::kDone);
  EXPECT_EQ(parser.request().Field("x-access-token"), nullptr);
  EXPECT_TRUE(input.empty());
}

}  // namespace
}  // namespace cube::agent::http
