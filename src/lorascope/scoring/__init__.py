"""The scores of a trial, item by item, and the merged model that is shipped."""
