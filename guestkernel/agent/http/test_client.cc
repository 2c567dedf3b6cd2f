#include "guestkernel/agent/http/test_client.h"

#include <sys/socket.h>

#include <algorithm>
#include <cctype>

namespace cube::agent::http {

bool TestClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool TestClient::SendRequest(const std::string& method, const std::string& target,
                             const Fields& fields, const std::string* body) {
  std::string text = method + " " + target + " HTTP/1.1\r\nHost: sandbox\r\n";
  for (const auto& [name, value] : fields) text += name + ": " + value + "\r\n";
  if (body != nullptr) text += "Content-Length: " + std::to_string(body->size()) + "\r\n";
  return Send(text + "\r\n" + (body == nullptr ? "" : *body));
}

void TestClient::CloseOurHalf() { shutdown(socket_.get(), SHUT_WR); }

bool TestClient::Receive() {
  char buffer[65536];
  const ssize_t n = recv(socket_.get(), buffer, sizeof buffer, 0);
  if (n <= 0) return false;
  received_.append(buffer, static_cast<size_t>(n));
  return true;
}

std::optional<std::string> TestClient::TakeLine() {
  size_t end;
  while ((end = received_.find("\r\n")) == std::string::npos) {
    if (!Receive()) return std::nullopt;
  }
  std::string line = received_.substr(0, end);
  received_.erase(0, end + 2);
  return line;
}

std::optional<std::string> TestClient::Take(size_t size) {
  while (received_.size() < size) {
    if (!Receive()) return std::nullopt;
  }
  std::string bytes = received_.substr(0, size);
  received_.erase(0, size);
  return bytes;
}

TestClient::Answer TestClient::ReadHead() {
  Answer answer;
  std::optional<std::string> line = TakeLine();
  if (!line || !line->starts_with("HTTP/1.1 ")) return answer;
  const int status = std::stoi(line->substr(9));
  while ((line = TakeLine()) && !line->empty()) {
    const size_t colon = line->find(": ");
    std::string name = line->substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return tolower(c); });
    answer.fields[name] = line->substr(colon + 2);
  }
  if (!line) return answer;
  answer.status = status;
  chunked_ = answer.fields.contains("transfer-encoding");
  const bool bodiless = status == 204 || status / 100 == 1;
  left_ =
      answer.fields.contains("content-length") ? std::stoul(answer.fields["content-length"]) : 0;
  until_end_ = !chunked_ && !bodiless && !answer.fields.contains("content-length");
  whole_ = !chunked_ && !until_end_ && left_ == 0;
  return answer;
}

std::optional<std::string> TestClient::ReadPiece() {
  if (whole_) return std::nullopt;
  if (chunked_) {
    std::optional<std::string> line = TakeLine();
    if (!line) return std::nullopt;
    const size_t size = std::stoul(*line, nullptr, 16);
    std::optional<std::string> piece = Take(size);
    if (!piece || !TakeLine()) return std::nullopt;
    if (size > 0) return piece;
    whole_ = true;
    return std::nullopt;
  }
  if (received_.empty() && !Receive()) {
    whole_ = until_end_;
    return std::nullopt;
  }
  const size_t size = until_end_ ? received_.size() : std::min(left_, received_.size());
  if (!until_end_) {
    left_ -= size;
    whole_ = left_ == 0;
  }
  return Take(size);
}

TestClient::Answer TestClient::ReadAnswer() {
  Answer answer = ReadHead();
  if (answer.status == 0) return answer;
  while (std::optional<std::string> piece = ReadPiece()) answer.body += *piece;
  answer.whole = whole_;
  return answer;
}

bool TestClient::AtEnd() { return received_.empty() && !Receive() && received_.empty(); }

}  // namespace cube::agent::http
