package store

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// MaxDiscovered is how many machines are kept of which an agent told what they are made of.
// Whoever reaches the boot network can invent some: those heard longest ago make room.
const MaxDiscovered = 1000

// PutDiscovered stores what was found of a machine, in place of what was found before, and
// with it the event that says so where it has a kind, in one transaction.
func (s *Store) PutDiscovered(ctx context.Context, d lane.Discovered, e lane.Event) error {
	d.Hosts, d.Mismatch = nil, nil // as the inventory stands when it is told
	doc, err := json.Marshal(d)
	if err != nil {
		return broken("encode what was found of "+d.ID, err)
	}
	return s.do(ctx, func(ctx context.Context, tx *transaction) error {
		if _, err := tx.exec(ctx, putDiscovered, d.ID, d.Heard.UnixMicro(), string(doc)); err != nil {
			return broken("write what was found of a machine", err)
		}
		if _, err := tx.exec(ctx, dropDiscovered, MaxDiscovered); err != nil {
			return broken("make room for what is found of machines", err)
		}
		if e.Kind == "" {
			return nil
		}
		_, err := s.putEvent(ctx, tx, e)
		return err
	})
}

// Discovered returns what was found of machines, by their ids.
func (s *Store) Discovered(ctx context.Context) ([]lane.Discovered, error) {
	out, err := docs[lane.Discovered](ctx, s, `SELECT doc FROM discovered`)
	slices.SortFunc(out, func(a, b lane.Discovered) int { return strings.Compare(a.ID, b.ID) })
	return out, err
}

// DiscoveredAs returns what was found of one machine; none is a NotFound error.
func (s *Store) DiscoveredAs(ctx context.Context, id string) (lane.Discovered, error) {
	list, err := docs[lane.Discovered](ctx, s, `SELECT doc FROM discovered WHERE id = $1`, id)
	if err == nil && len(list) == 0 {
		err = lane.Errorf(lane.NotFound, "no machine %q was looked at: `bootlane host discovered` shows those that were", id)
	}
	if err != nil {
		return lane.Discovered{}, err
	}
	return list[0], nil
}
