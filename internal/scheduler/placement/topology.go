package placement

// noDomain stands for nodes without the topology label.
const noDomain = -1

// topology is the division of the nodes by the values of one label.
type topology struct {
	key     string
	of      []int32 // domain of each node, or noDomain
	ids     map[string]int32
	members [][]int32 // nodes of each domain
	used    int       // domains with members
	room    []int32   // for the first members of domains to come: with hostnames there are as many domains as nodes
}

// topology returns the division by the label key.
func (st *State) topology(key string) *topology {
	t := st.topologies[key]
	if t == nil {
		t = &topology{key: key, ids: map[string]int32{}}
		st.topologies[key] = t
		for i := range st.nodes {
			t.update(int32(i), st.nodes[i])
		}
	}
	return t
}

// update puts node i where its label says; n is nil for a node that is gone.
func (t *topology) update(i int32, n *node) {
	for len(t.of) <= int(i) {
		t.of = append(t.of, noDomain)
	}
	domain := int32(noDomain)
	if n != nil {
		if value, ok := n.obj.Labels[t.key]; ok {
			id, known := t.ids[value]
			if !known {
				id = int32(len(t.members))
				t.ids[value] = id
				if len(t.room) == 0 {
					t.room = make([]int32, 128)
				}
				t.members = append(t.members, t.room[:0:1])
				t.room = t.room[1:]
			}
			domain = id
		}
	}
	old := t.of[i]
	if old == domain {
		return
	}
	t.of[i] = domain
	if old != noDomain {
		for j, m := range t.members[old] {
			if m == i {
				last := len(t.members[old]) - 1
				t.members[old][j] = t.members[old][last]
				t.members[old] = t.members[old][:last]
				break
			}
		}
		if len(t.members[old]) == 0 {
			t.used--
		}
	}
	if domain != noDomain {
		t.members[domain] = append(t.members[domain], i)
		if len(t.members[domain]) == 1 {
			t.used++
		}
	}
}
