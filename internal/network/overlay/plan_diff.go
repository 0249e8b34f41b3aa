package overlay

import "slices"

// State is what the kernel has of an instance.
type State struct {
	Link       *Link
	Forwards   []Tunnel // forwarding entries of the link
	Neighbours []Tunnel // neighbour entries of the link
	Routes     []Route
}

// Changes are the steps from a State to a Plan, in the order of the fields: whatever a route needs is there before the route,
// and goes after it. What stays is not touched, so that traffic runs on.
type Changes struct {
	DeleteFirst      bool // the link has to be made anew
	Make             *Link
	Adjust           *Link // MTU, address, up
	SetForwards      []Tunnel
	SetNeighbours    []Tunnel
	SetRoutes        []Route
	DeleteRoutes     []Route
	DeleteForwards   []Tunnel
	DeleteNeighbours []Tunnel
	DeleteLast       bool
}

// Empty reports whether there is nothing to do.
func (c Changes) Empty() bool {
	return !c.DeleteFirst && !c.DeleteLast && c.Make == nil && c.Adjust == nil &&
		len(c.SetForwards)+len(c.SetNeighbours)+len(c.SetRoutes)+len(c.DeleteRoutes)+len(c.DeleteForwards)+len(c.DeleteNeighbours) == 0
}

// Difference returns the steps from have to want.
func Difference(want Plan, have State) Changes {
	var c Changes
	switch {
	case want.Link == nil:
		c.DeleteLast = have.Link != nil
		have.Forwards, have.Neighbours = nil, nil // they go with the link
	case have.Link == nil:
		c.Make = want.Link
		have.Forwards, have.Neighbours = nil, nil
	case want.Link.identity() != have.Link.identity():
		c.DeleteFirst, c.Make = true, want.Link
		have.Forwards, have.Neighbours = nil, nil
		// The kernel takes these with the link.
		have.Routes = slices.DeleteFunc(slices.Clone(have.Routes), func(r Route) bool { return r.Device == OnOverlay })
	case *want.Link != *have.Link:
		c.Adjust = want.Link
	}
	c.SetForwards, c.DeleteForwards = difference(want.Tunnels, have.Forwards)
	c.SetNeighbours, c.DeleteNeighbours = difference(want.Tunnels, have.Neighbours)
	// Setting an entry replaces the one of the same key.
	c.DeleteForwards = without(c.DeleteForwards, want.Tunnels, func(a, b Tunnel) bool { return a.MAC == b.MAC })
	c.DeleteNeighbours = without(c.DeleteNeighbours, want.Tunnels, func(a, b Tunnel) bool { return a.IP == b.IP })
	c.SetRoutes, c.DeleteRoutes = difference(want.Routes, have.Routes)
	c.DeleteRoutes = without(c.DeleteRoutes, want.Routes, func(a, b Route) bool { return a.Dst == b.Dst })
	return c
}

// identity is what cannot be changed of a link that exists.
func (l Link) identity() Link {
	l.MTU, l.Addr, l.Up = 0, l.Local, true
	return l
}

// difference returns what is only in want and what is only in have.
func difference[T comparable](want, have []T) (add, del []T) {
	wanted, had := map[T]bool{}, map[T]bool{}
	for _, x := range want {
		wanted[x] = true
	}
	for _, x := range have {
		had[x] = true
		if !wanted[x] {
			del = append(del, x)
		}
	}
	for _, x := range want {
		if !had[x] {
			add = append(add, x)
		}
	}
	return add, del
}

// without returns the elements of list that have the key of none of others.
func without[T comparable](list, others []T, sameKey func(a, b T) bool) []T {
	return slices.DeleteFunc(list, func(x T) bool {
		return slices.ContainsFunc(others, func(y T) bool { return sameKey(x, y) })
	})
}
