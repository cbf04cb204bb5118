"""Tools of whoever runs a lake: adopt, remove, gc, du, reshard, plan, verify."""
