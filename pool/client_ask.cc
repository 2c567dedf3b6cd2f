#include "pool/client_ask.h"

#include <boost/json.hpp>
#include <cstdio>

#include "pool/client_connection.h"

namespace cube::pool {

namespace json = boost::json;

int Fail(const Words& words, const Error& error) {
  if (words.as_json) {
    printf("%s\n",
           json::serialize(json::object{{"ok", false}, {"error", error.message()}}).c_str());
  } else {
    fprintf(stderr, "cube: %s\n", error.message().c_str());
  }
  return 1;
}

std::string SocketOf(const Words& words) {
  return words.socket.empty() ? words.home + "/cubed.sock" : words.socket;
}

Printer Rows(std::string member, std::vector<ClientColumn> columns) {
  return [member, columns](const json::object& answer) {
    const json::value* rows = answer.if_contains(member);
    if (rows != nullptr && rows->is_array()) PrintTable(rows->get_array(), columns);
  };
}

Printer OnlyId(std::string member) {
  return [member](const json::object& answer) {
    const json::value* inner = answer.if_contains(member);
    const json::object* object = inner != nullptr ? inner->if_object() : nullptr;
    const json::value* id = object != nullptr ? object->if_contains("id") : nullptr;
    if (id != nullptr) printf("%s\n", ClientText("id", *id).c_str());
  };
}

void PrintAll(const json::object& answer) { PrintMembers(answer); }
void PrintNothing(const json::object&) {}

int Ask(const Words& words, const json::object& request, const Printer& print) {
  auto connection = ClientConnection::Open(SocketOf(words));
  if (!connection.ok()) return Fail(words, connection.error());
  auto answer = connection->Ask(json::serialize(request));
  if (!answer.ok()) return Fail(words, answer.error());
  auto object = Understand(*answer);
  if (words.as_json) {
    printf("%s\n", answer->c_str());
    return object.ok() ? 0 : 1;
  }
  if (!object.ok()) return Fail(words, object.error());
  print(*object);
  return 0;
}

}  // namespace cube::pool
