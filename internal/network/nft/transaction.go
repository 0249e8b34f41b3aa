package nft

// Transaction is a list of changes to one table. The zero Transaction is empty.
type Transaction struct{ Steps []Step }

// Step is one change. Kind says which of the other fields it has.
type Step struct {
	Kind     Kind
	Set      *Set      // AddSet, AddElements, DeleteElements; of DeleteSet the name
	Chain    *Chain    // AddChain; of DeleteChain the name
	Elements []Element // AddElements, DeleteElements
}

// Kind is what a step does.
type Kind uint8

// The kinds of steps; the methods of [Transaction] say what they mean.
const (
	AddTable Kind = iota
	DeleteTable
	AddSet
	AddChain
	DeleteChain
	AddElements
	DeleteElements
	DeleteSet
)

// Replace begins the table anew, whatever there is of it: what follows finds it empty.
func (t *Transaction) Replace() {
	t.Remove()
	t.Steps = append(t.Steps, Step{Kind: AddTable})
}

// Remove deletes the table. It is no error if there is none: it is made before.
func (t *Transaction) Remove() {
	t.Steps = append(t.Steps, Step{Kind: AddTable}, Step{Kind: DeleteTable})
}

// AddSet makes an empty set or map.
func (t *Transaction) AddSet(s *Set) { t.Steps = append(t.Steps, Step{Kind: AddSet, Set: s}) }

// DeleteSet deletes a set with its elements. While a rule looks into it, that fails the transaction (EBUSY).
func (t *Transaction) DeleteSet(s *Set) { t.Steps = append(t.Steps, Step{Kind: DeleteSet, Set: s}) }

// AddChain makes a chain. Sets and chains that its rules name must be there before.
func (t *Transaction) AddChain(c Chain) {
	t.Steps = append(t.Steps, Step{Kind: AddChain, Chain: &c})
}

// DeleteChain deletes a chain and its rules. While something leads to it, that fails the transaction (EBUSY).
func (t *Transaction) DeleteChain(name string) {
	t.Steps = append(t.Steps, Step{Kind: DeleteChain, Chain: &Chain{Name: name}})
}

// Add adds elements. One whose key the set has with another value fails the transaction (EEXIST): delete that before. One with
// the same value changes nothing, not even its timeout if that is the same.
func (t *Transaction) Add(s *Set, elements ...Element) {
	if len(elements) > 0 {
		t.Steps = append(t.Steps, Step{Kind: AddElements, Set: s, Elements: elements})
	}
}

// Delete deletes elements by their keys. One that is not there fails the transaction (ENOENT). Deletions belong before additions:
// a full set has no room for an element whose predecessor is deleted later (ENFILE).
func (t *Transaction) Delete(s *Set, elements ...Element) {
	if len(elements) > 0 {
		t.Steps = append(t.Steps, Step{Kind: DeleteElements, Set: s, Elements: elements})
	}
}
