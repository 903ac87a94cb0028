package blockstore

import "slices"

// choose lists the disks that have room for so many bytes, in the order in which to try them. Those with at least
// half the room of the emptiest take turns; the others come after, only for when these fail.
func (s *Store) choose(size int64) []*disk {
	type roomy struct {
		d    *disk
		room int64
	}
	var all []roomy
	var most int64
	for _, d := range s.disks {
		if d.down() != nil {
			continue
		}
		_, free, err := d.room()
		if d.judge(err) != nil {
			continue
		}
		if room := free - d.booked.Load() - s.Reserve; room > 0 && room >= size {
			all = append(all, roomy{d, room})
			most = max(most, room)
		}
	}
	var first, rest []*disk
	for _, r := range all {
		if r.room >= most/2 {
			first = append(first, r.d)
		} else {
			rest = append(rest, r.d)
		}
	}
	if len(first) > 0 {
		turn := int(s.turn.Add(1) % uint64(len(first)))
		first = slices.Concat(first[turn:], first[:turn])
	}
	return slices.Concat(first, rest)
}
