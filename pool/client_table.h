#ifndef CUBE_POOL_CLIENT_TABLE_H_
#define CUBE_POOL_CLIENT_TABLE_H_

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <string>
#include <vector>

namespace cube::pool {

// A column of a table for people: its heading, and the member of each row's object.
struct ClientColumn {
  const char* heading;
  const char* member;
};

// The rows of an answer as a table on stdout, columns as wide as they need to be.
void PrintTable(const boost::json::array& rows, const std::vector<ClientColumn>& columns);

// The members of an answer's object, one in a line, on stdout; "ok" is left out.
void PrintMembers(const boost::json::object& object, const std::string& indent = "");

// A value as people read it: times as dates, lists and objects as JSON. Control characters, which
// may be a guest's, are shown as '?'.
std::string ClientText(const std::string& member, const boost::json::value& value);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_TABLE_H_
