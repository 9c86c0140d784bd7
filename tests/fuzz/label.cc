// Labels and accept sets: one text per label, and the laws of a join semilattice (I11).
#include "kernel/label.h"

#include "tests/fuzz/fuzz.h"

using namespace certgate;
using kernel::AcceptSet;
using kernel::Label;

namespace {

// Parsed where it parses; else made of the words, which must always be possible.
Label label_of(const std::string& text) {
  const auto parsed = Label::parse(text);
  if (parsed) {
    const auto again = Label::parse(parsed->text());
    CG_LAW(again && *again == *parsed && again->text() == parsed->text());
    return *parsed;
  }
  std::vector<kernel::Origin> origins;
  fuzz::Bytes in(fuzz::bytes_of(text), text.size());
  while (!in.empty()) {
    const auto cls = static_cast<kernel::OriginClass>(in.byte() % kernel::kOriginClasses);
    origins.push_back({cls, in.until(',')});
  }
  return Label::of(std::move(origins));
}

void one_text(const Label& label) {
  const auto parsed = Label::parse(label.text());
  CG_LAW(parsed && *parsed == label);
  CG_LAW(label.origins().size() <= kernel::kMaxOrigins);
  CG_LAW(label.text().size() <= 8448);  // it fits a record whole (record.cc)
  for (const kernel::Origin& origin : label.origins()) {
    const bool tag = origin.cls == kernel::OriginClass::kSecret;
    const auto one =
        tag ? kernel::Origin::parse_tag(origin.text()) : kernel::Origin::parse(origin.text());
    CG_LAW(!tag || !kernel::Origin::parse(origin.text()));  // and none of both
    CG_LAW(one && *one == origin);
  }
}

void semilattice(const Label& a, const Label& b, const Label& c) {
  const Label ab = a.join(b);
  CG_LAW(ab == b.join(a));
  CG_LAW(ab.join(c) == a.join(b.join(c)));
  CG_LAW(a.join(a) == a && a.join(Label()) == a);
  CG_LAW(ab.covers(a) && ab.covers(b) && a.covers(Label()));
  CG_LAW(a.covers(b) == (a.join(b) == a));
  if (a.covers(b) && b.covers(c)) CG_LAW(a.covers(c));
  one_text(ab);
}

}  // namespace

FUZZ_TARGET(label) {
  fuzz::Bytes in(data, size);
  const std::string accepted = in.until('\n');
  const Label a = label_of(in.until('\n')), b = label_of(in.until('\n')), c = label_of(in.rest());
  one_text(a);
  semilattice(a, b, c);

  std::vector<std::string> patterns;
  fuzz::Bytes words(fuzz::bytes_of(accepted), accepted.size());
  while (!words.empty()) patterns.push_back(words.until(','));
  const auto accept = AcceptSet::parse(patterns);
  if (!accept) return 0;
  const auto again = AcceptSet::parse(accept->texts());
  CG_LAW(again && again->texts() == accept->texts());
  for (const Label* label : {&a, &b, &c}) {
    CG_LAW(accept->accepts(*label) == again->accepts(*label));
    const kernel::Origin* culprit = accept->first_rejected(*label);
    CG_LAW(accept->accepts(*label) == (culprit == nullptr));
    if (culprit != nullptr) CG_LAW(label->covers(Label::of({*culprit})));
  }
  // More taint never turns a refusal into a permit.
  CG_LAW(!accept->accepts(a.join(b)) || (accept->accepts(a) && accept->accepts(b)));
  return 0;
}
