package wire

// A card is what an agent says about itself to its peers: a JSON object, whose members mean nothing here.

// CheckCard returns an [*Error] for a text that is no card.
func CheckCard(text []byte) error {
	s := scanner{b: text, limit: MaxCardDepth}
	card, bad := s.card("card")
	s.end()
	if s.err == nil && bad == nil && card == nil {
		bad = problem(CodeInvalidField, "card", "want an object", 0)
	}
	return firstError(s.err, bad)
}

// card reads the card at the cursor; nil for null.
func (s *scanner) card(path string) ([]byte, *Error) {
	outer, limit := s.outer, s.limit
	s.outer, s.limit = s.depth, min(s.limit, s.depth+MaxCardDepth)
	v := s.value()
	s.outer, s.limit = outer, limit
	switch {
	case s.err != nil || v.kind == 'n':
		return nil, nil
	case v.kind != '{':
		return nil, problem(CodeInvalidField, path, "want an object", v.start)
	case v.end-v.start > MaxCard:
		return nil, tooLarge(path, "card", v.end-v.start, MaxCard)
	}
	return s.raw(v), nil
}

// DecodeCard decodes the card in the payload of a card command or event; nil if there is none.
func DecodeCard(payload []byte) (card []byte, err error) {
	err = decodeObject(payload, []field{{keyCard, &card}})
	return card, err
}

// AppendCardCommand appends a card command: peers are to be told this card, or that there is none any more.
func AppendCardCommand(dst, card []byte) []byte {
	dst = append(appendType(dst, TypeCard), `{"card":`...)
	return append(appendOneLine(dst, orNull(card)), "}}\n"...)
}

// AppendCardEvent appends a card event: a peer has another card, or none any more.
func AppendCardEvent(dst []byte, peer string, card []byte) []byte {
	dst = AppendString(append(appendType(dst, TypeCard), `{"peer_id":`...), peer)
	return append(appendOneLine(append(dst, `,"card":`...), orNull(card)), "}}\n"...)
}

// appendCard appends the member of an object that has others; none for nil.
func appendCard(dst, card []byte) []byte {
	if card == nil {
		return dst
	}
	return appendOneLine(append(dst, `,"card":`...), card)
}

func orNull(card []byte) []byte {
	if card == nil {
		return []byte("null")
	}
	return card
}
